"""Settings are refused by a model or scheduler that they were not calibrated for."""

from __future__ import annotations

from typing import Any

import pytest

from adacache_kernels.schedule.calibrated_for import CalibratedFor

MODEL: dict[str, Any] = {"class": "Wan", "config": {"layers": 2}}
MADE_FOR = CalibratedFor(MODEL, {"class": "Euler", "config": {}}, 20)


@pytest.mark.parametrize(
    ("model", "scheduler", "steps", "message"),
    [
        ({**MODEL, "class": "Latte"}, None, 20, "another model: class 'Wan', here 'Latte'; "),
        ({**MODEL, "config": {"layers": 3}}, None, 20, "another model: layers 2, here 3; "),
        (MODEL, {"class": "Heun"}, 20, "another scheduler: class 'Euler', here 'Heun'; "),
        (MODEL, None, 21, "20 steps and this generation has 21; "),
    ],
)
def test_what_differs_is_named(model: Any, scheduler: Any, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^it is for {message}.* or leave it$"):
        MADE_FOR.check(model, scheduler, steps, "it", "leave it")


def test_a_bare_model_fits_any_scheduler() -> None:
    MADE_FOR.check(dict(MODEL), None, 20, "it", "leave it")
