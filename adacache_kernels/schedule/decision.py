"""What a computed step decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Outcome of the decide op at one computed step.

    Args:
        step: the computed step, counted from 1.
        rate: steps until the next computed one.
        distance: what the codebook was asked with; None at the first computed step, or where it was
            not finite.
        raw_distance: the same before motion regularisation.
        motion: motion score; 1 without motion regularisation or outside its window.
        not_finite: the distance was NaN or infinite.
        zero_denominator: what the distance divides by was zero: a residual of zeros throughout.
    """

    step: int
    rate: int
    distance: float | None
    raw_distance: float | None
    motion: float
    not_finite: bool = False
    zero_denominator: bool = False
