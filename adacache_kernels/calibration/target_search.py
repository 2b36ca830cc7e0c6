"""Finds the knob of a form at which a target is reached: predicted, then seen, then corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config.calibration_file import Target

Array = NDArray[np.float64]

# A round that comes as near as this ends the search: a part of a speedup, dB.
NEAR = {"speedup": 0.02, "psnr": 0.25}
# A target that is missed by more than this, with no knob left that is nearer, is out of reach.
REACHED = {"speedup": 0.1, "psnr": 1.0}
# Logarithms of knobs that are taken for the same; knobs are written to four digits.
SAME = 1e-3


@dataclass(frozen=True)
class SearchPoint:
    """A knob and what it was seen to give."""

    knob: float
    value: float


class Curve:
    """What is predicted for every knob, corrected by what was seen.

    value(knob) = predicted(knob) + correction, the latter linear between the knobs that were tried

    Speedups are taken by their logarithm.

    Args:
        target: which values these are.
        knobs: some, rising.
        predicted: for each of them; where it does not exist (infinite), the knob is not chosen.
    """

    def __init__(self, target: Target, knobs: Sequence[float], predicted: Sequence[float]) -> None:
        self._target = target
        usable = np.isfinite(predicted)
        if not usable.any():
            raise ValueError("whatever is set, every step is computed in most of the cases")
        self._knobs = np.asarray(knobs)[usable]
        self._logs = np.log(self._knobs)
        self._values = self._scaled(np.asarray(predicted)[usable])

    def nearest(self, tried: Sequence[SearchPoint]) -> float:
        """The knob, not tried yet, whose value is expected to be nearest to the target's."""
        for knob in self._by_distance(tried):
            if all(abs(np.log(knob / old.knob)) > SAME for old in tried):
                return knob
        return tried[-1].knob

    def is_beyond(self, tried: Sequence[SearchPoint]) -> bool:
        """Whether the knob that is nearest to the target is at an end, and was tried."""
        nearest = np.log(next(self._by_distance(tried)))
        at_end = np.abs(self._logs[[0, -1]] - nearest).min() <= SAME
        return bool(at_end and any(abs(nearest - np.log(old.knob)) <= SAME for old in tried))

    def _by_distance(self, tried: Sequence[SearchPoint]) -> Iterator[float]:
        """Knobs, those first whose values are expected nearest to the target's."""
        grid = np.linspace(self._logs[0], self._logs[-1], 801)
        distance = np.abs(self._expected(grid, tried) - self._scaled(self._target.value))
        # Of several, the first: it computes the fewest steps.
        for index in np.argsort(distance, kind="stable"):
            knob = float(f"{np.exp(grid[index]):.4g}")
            yield float(np.clip(knob, *self._knobs[[0, -1]]))

    def _expected(self, logs: Array, tried: Sequence[SearchPoint]) -> Array:
        values: Array = np.interp(logs, self._logs, self._values)
        if not tried:
            return values
        seen = sorted(tried, key=lambda one: one.knob)
        at = np.log([one.knob for one in seen])
        corrections = self._scaled(np.array([one.value for one in seen])) - np.interp(
            at, self._logs, self._values
        )
        return np.asarray(values + np.interp(logs, at, corrections))

    def _scaled(self, values: float | Array) -> Array:
        return np.asarray(np.log(values) if self._target.of == "speedup" else values)


def search(
    target: Target,
    first: float,
    curve: Callable[[], Curve],
    see: Callable[[float], None],
    value: Callable[[float], float],
    rounds: int,
) -> list[SearchPoint]:
    """Up to so many knobs and what they gave, the one nearest to the target last.

    Args:
        target: what is to be reached.
        first: knob to begin with.
        curve: of what is predicted, asked for again after each round.
        see: generates with a knob.
        value: what a knob that was seen gives, by all that is known now.
        rounds: at most.

    Raises:
        ValueError: no knob reaches the target: the last one on its side was tried, and is short.
    """
    tried: list[SearchPoint] = []
    knob = first
    while True:
        see(knob)
        tried = [SearchPoint(old, value(old)) for old in (*(one.knob for one in tried), knob)]
        tried.sort(key=lambda one: -abs(distance(target, one.value)))
        if abs(distance(target, tried[-1].value)) <= NEAR[target.of]:
            return tried
        expected = curve()
        if expected.is_beyond(tried):
            _check_reached(target, max(one.value for one in tried))
            return tried
        if len(tried) == rounds:
            return tried
        knob = expected.nearest(tried)


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
    """Value less target: of a speedup as a part of it, of a PSNR in dB."""
    return value / target.value - 1 if target.of == "speedup" else value - target.value
