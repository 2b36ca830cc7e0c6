"""The decision of a computed step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """The result of the decide op in one computed step.

    Args:
        step: the computed step, counted from 1.
        rate: number of steps from this computed step to the next one.
        distance: distance that the codebook maps to the rate, with motion regularization. None in
            the first computed step, and if the distance is not finite.
        raw_distance: the distance without motion regularization.
        motion: motion score; 1 without motion regularization or outside its window.
        not_finite: True if the distance is NaN or infinite.
        zero_denominator: True if the distance divides by zero, as with a residual of zeros.
    """

    step: int
    rate: int
    distance: float | None
    raw_distance: float | None
    motion: float
    not_finite: bool = False
    zero_denominator: bool = False
