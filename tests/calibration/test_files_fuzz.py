"""Random changes of files: each loader returns, or raises ValueError with the name of the file."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adacache_kernels import Calibration
from adacache_kernels.config.calibration_file import HeldOutResult, Target
from adacache_kernels.evaluate.results import check_same_study, read_rows
from adacache_kernels.schedule.calibrated_for import CalibratedFor
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_study import fixed_row

STEPS = 6
PARTS = {"model": {"class": "A", "config": {"x": [1, 2], "y": None}}, "scheduler": None}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 6, 10**9, 10**30, 0.5, -0.0, 1e300, float("nan"), float("inf"),
    "", "x", "nan", "\ud800", [], {}, [[]], [None], [1, 2, 3], ["x"], {"": 1}, {"class": "A"},
    [float("nan")], [1e308] * 6, [0] * 21, [1.0] * 21, [-1] * 6, "profile", "codebook", "speedup",
)  # fmt: skip


def profile() -> Profile:
    rows = np.random.default_rng(0).standard_normal((STEPS, 30))
    gram = rows @ rows.T
    return Profile(
        num_steps=STEPS, gram=gram, span_grams={"blocks": gram}, sensitivity=np.ones(STEPS),
        notes={"cases": 3}, **PARTS,
    )  # fmt: skip


def calibration() -> Calibration:
    return Calibration(
        kind="profile",
        settings={"forecast": 1, "correct": True, "computed_steps": 3.5, "codebook": [[0.1, 2]]},
        calibrated_for=CalibratedFor(num_steps=STEPS, **PARTS),
        target=Target("speedup", 2.0),
        held_out=HeldOutResult(3, 2.0, 1.8, 30.0, 1.0, 28.0, 3.0),
        profile=profile(),
        notes={"tried": [[1, 2]]},
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) inside of a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in list(inside):
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)[:20]
    return found


def changed(values: Any, draw: random.Random) -> str:
    """Return the JSON of `values` with one to three changes, of the value and then of the text."""
    values = json.loads(json.dumps(values))
    for _ in range(draw.randrange(1, 4)):
        container, key = draw.choice(places(values) or [(None, None)])
        if container is None:
            break
        if draw.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(draw.choice(VALUES))
    text = json.dumps(values)
    if draw.random() < 0.3:
        at = draw.randrange(len(text))
        cut = draw.choice(("", "}", "[", '"', "9" * 30, "NaN", "\0", ", ", text[:at]))
        text = text[:at] + cut + text[at + draw.randrange(3) :]
    return text


LOADERS: dict[str, tuple[Callable[[], Any], Callable[[Path], Any]]] = {
    "profile": (lambda: profile().to_dict(), Profile.load),
    "calibration": (lambda: calibration().to_dict(), Calibration.load),
    "rows": (lambda: asdict(fixed_row("fast", 30.0, 5, 1.0)), read_rows),
    "study": (lambda: {"steps": 3}, lambda path: check_same_study(path.parent, {"steps": 3})),
}


@pytest.mark.parametrize("name", LOADERS)
def test_random_changes(name: str, tmp_path: Path) -> None:
    make, load = LOADERS[name]
    values, draw = make(), random.Random(17)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(values))
    load(path)
    refused = 0
    for _ in range(250):
        path.write_text(changed(values, draw), encoding="utf-8", errors="surrogatepass")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(path)
        except ValueError as error:
            refused += 1
            message = str(error)
            assert str(tmp_path) in message and len(message) < 2000, message
    assert 50 < refused <= 250


def test_loaded_values_are_usable(tmp_path: Path) -> None:
    """The planner accepts all that a loader accepts."""
    values, draw = calibration().to_dict(), random.Random(18)
    path, used = tmp_path / "it.json", 0
    for _ in range(100):
        path.write_text(changed(values, draw), encoding="utf-8", errors="surrogatepass")
        try:
            loaded = Calibration.load(path)
        except ValueError:
            continue
        assert str(loaded) and json.dumps(loaded.to_dict(), allow_nan=False)
        if loaded.profile is not None and loaded.profile.num_steps == STEPS:
            with np.errstate(all="raise"):
                plan = loaded.profile.plan(1)
                steps = plan.schedule(plan.price_for(plan.fewest))
            assert steps[0] == 1
            used += 1
    assert used >= 5
