"""Writes into streams under all settings: the second generation is that of a model without writes.

The writes are known then, so the same steps are computed and all residuals are right from step 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels.models import ADAPTERS, Adapter
from adacache_kernels.models.adapter_builders import split_block_list
from tests.engine.residuals.written_streams import (
    ADAPTER,
    SCHEDULE,
    STEPS,
    Block,
    InPlace,
    Written,
    add,
    generate,
    largest_difference,
)
from tests.support.graph_closures import Closures, capture

__all__ = ["capture"]
pytestmark = pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning")
WITH_AND_WITHOUT = pytest.mark.parametrize(
    "inference", [False, True], ids=["versions", "inference"]
)
EVERY_THIRD: dict[str, Any] = {"codebook": {float("inf"): 3}}
SETTINGS: dict[str, dict[str, Any]] = {
    "a line": {"schedule": SCHEDULE, "forecast": 1},
    "a corrected parabola": {"schedule": SCHEDULE, "forecast": 2, "correct": True},
    "distances": EVERY_THIRD,
    "distances of all blocks": EVERY_THIRD | {"cache_loc": ["start", "middle", "end"]},
    "forecast errors": EVERY_THIRD | {"forecast": 1, "measure": "forecast-error"},
    "a decision for each branch": EVERY_THIRD | {"decide_for": "branch"},
    "a decision for each video": EVERY_THIRD | {"batch": "each"},
}
CUT = replace(ADAPTER, lists=split_block_list(ADAPTER.lists[0], 4, [1]))


def second_generation(
    monkeypatch: pytest.MonkeyPatch,
    model: Written,
    adapter: Adapter,
    inference: bool,
    **settings: Any,
) -> tuple[list[list[Any]], ak.Summary]:
    monkeypatch.setitem(ADAPTERS, "Written", adapter)
    ak.patch(model, num_inference_steps=STEPS, **settings)
    batch = 2 if settings.get("batch") == "each" else 1
    for _ in range(2):
        latents = generate(model, branches=2, batch=batch, inference=inference)
    return latents, ak.summary(model)


def check(
    monkeypatch: pytest.MonkeyPatch,
    models: tuple[Written, Written],
    adapter: Adapter,
    inference: bool,
    **settings: Any,
) -> None:
    """Compare a model with writes with one without them that has this adapter.

    Within 1e-5: rounding only, as the sums are the same in another order.
    """
    written, plain = models
    found, of_written = second_generation(monkeypatch, written, ADAPTER, inference, **settings)
    wanted, of_plain = second_generation(monkeypatch, plain, adapter, inference, **settings)
    assert of_plain.reused_steps and of_written.computed_steps == of_plain.computed_steps
    distances = [[d or 0.0 for d in each.distances] for each in (of_written, of_plain)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-3)
    assert largest_difference(found, wanted) < 1e-5


@WITH_AND_WITHOUT
@pytest.mark.parametrize("name", SETTINGS)
def test_blocks_in_place_are_cached_like_others(
    name: str, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Written(*(InPlace,) * 4), Written(*(Block,) * 4)
    check(monkeypatch, models, ADAPTER, inference, **SETTINGS[name])


@WITH_AND_WITHOUT
@pytest.mark.parametrize("name", SETTINGS)
def test_hints_are_cached_as_if_the_list_were_described_in_parts(
    name: str, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Written(hints={1: add}), Written(hints={1: add})
    check(monkeypatch, models, CUT, inference, **SETTINGS[name])


@WITH_AND_WITHOUT
def test_graphs_are_captured_after_the_writes_are_known(
    inference: bool, capture: Closures, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EVERY_THIRD | {"decision": "graph"}
    models = Written(*(InPlace,) * 4), Written(*(Block,) * 4)
    check(monkeypatch, models, ADAPTER, inference, **settings)
    models = Written(hints={1: add}), Written(hints={1: add})
    check(monkeypatch, models, CUT, inference, **settings)


@WITH_AND_WITHOUT
def test_a_class_that_is_not_known_is_checked_after_its_probe(inference: bool) -> None:
    """The probe of step 1 takes hints for a part of one chain; step 2 shows them."""
    model = Written(hints={1: add})
    ak.patch(model, num_inference_steps=STEPS, schedule=[1, 6])
    found = generate(model, inference=inference)
    summary = ak.summary(model)
    ak.unpatch(model)
    assert summary.reused_steps
    assert "blocks[0:2]" in summary.found
    assert found
