"""Calibrations of models that change a stream between two blocks, so that a list is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import adacache_kernels as ak
from adacache_kernels import calibrate
from adacache_kernels.calibration.checkpoint import Checkpoint
from adacache_kernels.calibration.record import CalibrationRecording, no_progress, record
from adacache_kernels.models import ADAPTERS, Adapter
from adacache_kernels.models.cut_lists import cut_lists
from tests.engine.residuals.written_streams import ADAPTER, STEPS, Written, add, generate

pytestmark = [
    pytest.mark.usefixtures("seconds"),
    pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning"),
]
HINTS: list[dict[str, Any]] = [
    {"hints": {0: add}},
    {"hints": {1: add, 2: add}},
    {"text_hints": {0: add}},
    {"hints": {0: add}, "text_hints": {2: add}},
]


def denoising(model: Written, branches: int) -> Any:
    """Return a function from any case to the outcome of one generation."""

    def run(_case: int) -> Any:
        return generate(model, inference=False, branches=branches)[0][-1].sigmoid().detach()

    return run


def recorded(model: Written, adapter: Adapter, branches: int) -> CalibrationRecording:
    ADAPTERS["Written"] = adapter
    settings, stored = {"num_inference_steps": STEPS}, Checkpoint(None, {})
    run = denoising(model, branches)
    return record(model, range(2), run, settings, no_progress, stored, distances=True)


def names_of(hints: dict[str, dict[int, Any]]) -> str:
    """Return the hinted blocks of each stream."""
    return ", ".join(f"{stream} {list(of_stream)}" for stream, of_stream in hints.items())


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("hints", HINTS, ids=names_of)
def test_the_recording_is_that_of_a_list_in_parts(
    hints: dict[str, Any], branches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step shows that the list has to be cut; its residuals do not count."""
    monkeypatch.setitem(ADAPTERS, "Written", ADAPTER)
    model = Written(**hints)
    places = {("blocks", index) for of_stream in hints.values() for index in of_stream}
    in_parts = cut_lists(ADAPTER, model, places)
    assert in_parts is not None
    found, expected = (recorded(model, each, branches) for each in (ADAPTER, in_parts))
    for a, b in zip(found.cases, expected.cases, strict=True):
        assert list(a.span_grams) == [blocks.name for blocks in in_parts.lists]
        assert np.allclose(a.gram, b.gram, rtol=1e-4)
        assert a.distances is not None and b.distances is not None
        assert np.allclose(a.distances, b.distances, rtol=1e-3, atol=1e-6)
    assert not ak.is_patched(model)


def test_a_calibration_of_such_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "Written", ADAPTER)
    model = Written(hints={0: add})
    settings: dict[str, Any] = {"num_inference_steps": STEPS, "trials": 2, "rounds": 2}
    found = calibrate(model, range(4), denoising(model, 1), target_speedup=1.5, **settings)
    ak.patch(model, found)
    generate(model, inference=False)
    assert ak.summary(model).reused_steps
