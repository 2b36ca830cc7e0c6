"""The measurements of one full generation, and their form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schedule.calibrated_for import CalibratedFor, parse_calibrated_for
from .checkpoint import Measurement
from .outcomes import StoredOutcome

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RecordedCase:
    """The measurements of one full generation.

    Args:
        outcome: the result of `generate`, stored.
        gram: `[steps, steps]`, inner products of the residuals, scaled to a trace of the steps.
        span_grams: the same for the residual of each span.
        motion: motion score at each step of the residual of the last block list.
        distances: `[step, later step]` of the metric block's residual, not divided by the steps
            between; None unless they were requested.
        metric_motion: motion score at each step of the metric block's residual.
    """

    outcome: StoredOutcome
    gram: Array
    span_grams: Mapping[str, Array]
    motion: list[float]
    distances: Array | None
    metric_motion: list[float]


def packed_case(calibrated_for: CalibratedFor, case: RecordedCase) -> Measurement:
    """Return a case, and what it was recorded with, as a measurement."""
    names, outcome = list(case.span_grams), case.outcome
    values = {
        "calibrated_for": calibrated_for.to_dict(),
        "outcome": [list(outcome.shape), outcome.lowest, outcome.highest],
        "spans": names,
        "motion": case.motion,
        "metric_motion": case.metric_motion,
    }
    arrays: dict[str, NDArray[Any]] = {"outcome": outcome.values, "gram": case.gram}
    arrays |= {f"span {index}": case.span_grams[name] for index, name in enumerate(names)}
    if case.distances is not None:
        arrays["distances"] = case.distances
    return Measurement(values, arrays)


def unpacked_case(found: Measurement) -> tuple[CalibratedFor, RecordedCase]:
    """Return what `packed_case` was given."""
    values, arrays = found.values, found.arrays
    shape, lowest, highest = values["outcome"]
    calibrated_for = parse_calibrated_for(values["calibrated_for"])
    assert calibrated_for is not None
    case = RecordedCase(
        outcome=StoredOutcome(arrays["outcome"], tuple(shape), lowest, highest),
        gram=arrays["gram"],
        span_grams={name: arrays[f"span {i}"] for i, name in enumerate(values["spans"])},
        motion=values["motion"],
        distances=arrays.get("distances"),
        metric_motion=values["metric_motion"],
    )
    return calibrated_for, case
