"""The search for the knob that reaches a target: predict, measure, correct the prediction.

Each measurement is a round of generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config.calibration_file import Target
from .objectives import Objective
from .record import Case
from .simulate import SettingFamily, knob_for

Array = NDArray[np.float64]

# A value this near to the target ends the search: a part of a speedup, or dB.
NEAR = {"speedup": 0.02, "psnr": 0.25}
# A target is out of reach if the last knob on its side misses it by more than this.
REACHED = {"speedup": 0.1, "psnr": 1.0}
# Logarithms of knobs that count as equal; knobs have four digits.
SAME = 1e-3


@dataclass(frozen=True)
class SearchPoint:
    """A knob and its measured value."""

    knob: float
    value: float


class Curve:
    """Predicted values of all knobs, corrected by measured ones.

        value(knob) = predicted(knob) + correction, linear between the measured knobs

    Speedups are predicted by their logarithm.

    Args:
        target: the kind of the values, and the one to reach.
        knobs: rising.
        predicted: the value of each knob. Knobs with an infinite value are never chosen.

    Raises:
        ValueError: no predicted value is finite.
    """

    def __init__(self, target: Target, knobs: Sequence[float], predicted: Sequence[float]) -> None:
        self._target = target
        usable = np.isfinite(predicted)
        if not usable.any():
            raise ValueError(
                "every step is computed in most of the cases, whatever the setting; run more steps"
            )
        self._knobs = np.asarray(knobs)[usable]
        self._logs = np.log(self._knobs)
        self._values = self._scaled(np.asarray(predicted)[usable])

    def nearest(self, measured: Sequence[SearchPoint]) -> float:
        """Return the knob, not measured yet, whose expected value is nearest to the target."""
        for knob in self._by_distance(measured):
            if all(abs(np.log(knob / point.knob)) > SAME for point in measured):
                return knob
        return measured[-1].knob

    def is_beyond(self, measured: Sequence[SearchPoint]) -> bool:
        """Return whether the knob nearest to the target is the first or last, and measured."""
        nearest = np.log(next(self._by_distance(measured)))
        at_end = np.abs(self._logs[[0, -1]] - nearest).min() <= SAME
        return bool(at_end and any(abs(nearest - np.log(point.knob)) <= SAME for point in measured))

    def _by_distance(self, measured: Sequence[SearchPoint]) -> Iterator[float]:
        """Yield knobs, those first whose expected values are nearest to the target."""
        grid = np.linspace(self._logs[0], self._logs[-1], 801)
        distances = np.abs(self._expected(grid, measured) - self._scaled(self._target.value))
        # Of equal distances, the first knob: it computes the fewest steps.
        for index in np.argsort(distances, kind="stable"):
            knob = float(f"{np.exp(grid[index]):.4g}")
            yield float(np.clip(knob, *self._knobs[[0, -1]]))

    def _expected(self, logs: Array, measured: Sequence[SearchPoint]) -> Array:
        values: Array = np.interp(logs, self._logs, self._values)
        if not measured:
            return values
        rising = sorted(measured, key=lambda point: point.knob)
        at = np.log([point.knob for point in rising])
        corrections = self._scaled(np.array([point.value for point in rising])) - np.interp(
            at, self._logs, self._values
        )
        return np.asarray(values + np.interp(logs, at, corrections))

    def _scaled(self, values: float | Array) -> Array:
        return np.asarray(np.log(values) if self._target.of == "speedup" else values)


def search_rounds(
    objective: Objective[Case], family: SettingFamily, max_rounds: int
) -> list[SearchPoint]:
    """Search for the knob of a family that reaches the target.

    Args:
        objective: the target, and how it is measured.
        family: the settings to choose from.
        max_rounds: knobs that are generated with, at most.

    Returns:
        The measured knobs and their values, the one nearest to the target last.

    Raises:
        ValueError: no knob reaches the target.
    """
    knobs = family.knobs()
    simulated = [family.simulate(knob) for knob in knobs]
    measurements: dict[float, list[float]] = {}

    def predicted() -> Curve:
        return Curve(objective.target, knobs, [objective.predict(cases) for cases in simulated])

    def measure(knob: float) -> None:
        doing = f"round {len(measurements) + 1} of at most {max_rounds}"
        measurements[knob] = objective.measure(family.settings(knob), doing)

    def value(knob: float) -> float:
        return objective.value(measurements[knob])

    first = knob_for(family, objective.first_count)
    return search(objective.target, first, predicted, measure, value, max_rounds)


def search(
    target: Target,
    first: float,
    predicted: Callable[[], Curve],
    measure: Callable[[float], None],
    value: Callable[[float], float],
    max_rounds: int,
) -> list[SearchPoint]:
    """Measure knobs until one reaches the target, or `max_rounds` were measured.

    Args:
        target: the value to reach.
        first: knob of the first round.
        predicted: returns the predicted curve; called after each round.
        measure: generates with a knob.
        value: returns the value of a measured knob, from all measurements so far.
        max_rounds: knobs to measure, at most.

    Returns:
        The measured knobs and their values, the one nearest to the target last.

    Raises:
        ValueError: no knob reaches the target: the last one on its side is measured and short.
    """
    knobs: list[float] = []
    knob = first
    while True:
        measure(knob)
        measured = [SearchPoint(known, value(known)) for known in (*knobs, knob)]
        measured.sort(key=lambda point: -abs(distance(target, point.value)))
        knobs = [point.knob for point in measured]
        if abs(distance(target, measured[-1].value)) <= NEAR[target.of]:
            return measured
        curve = predicted()
        if curve.is_beyond(measured):
            _check_reached(target, max(point.value for point in measured))
            return measured
        if len(measured) == max_rounds:
            return measured
        knob = curve.nearest(measured)


def _check_reached(target: Target, highest: float) -> None:
    if distance(target, highest) >= -REACHED[target.of]:
        return
    if target.of == "speedup":
        raise ValueError(
            f"target_speedup={target.value:g} is out of reach: with the fewest computed steps, it "
            f"was {highest:.2f}x; ask for less, or run fewer steps"
        )
    raise ValueError(
        f"target_psnr={target.value:g} is out of reach: with the fewest reused steps, it was "
        f"{highest:.1f} dB; ask for less, or do not patch"
    )


def distance(target: Target, value: float) -> float:
    """Return value minus target: as a part of a speedup, or in dB of a PSNR."""
    return value / target.value - 1 if target.of == "speedup" else value - target.value
