"""The arguments of `calibrate`: their checks, and the split of its cases."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, get_args

from ..config.calibration_file import Kind, Target
from ..config.validation import check_choice, check_int
from ..measure.psnr_ssim import EQUAL_PSNR
from ..schedule.profile import Profile
from .outcomes import StoredOutcome
from .record import Case

# Part of the cases that is held out.
HELD_OUT = 0.25
FEWEST_CASES = 2


@dataclass(frozen=True)
class Request(Generic[Case]):
    """The checked arguments of `calibrate`, which explains them.

    `cases` are those to fit to, without the held-out ones.
    """

    target: Target
    kind: Kind
    cases: Sequence[Case]
    held_out: Sequence[Case]
    profile: Profile | None
    trials: int
    rounds: int
    refine: int
    peak: float | None
    seed: int
    settings: Mapping[str, Any]


def parse_target(speedup: float | None, psnr: float | None) -> Target:
    """Return the target, of which exactly one must be given.

    Args:
        speedup: above 1, or None.
        psnr: in dB, above 0 and below 100, or None.

    Raises:
        TypeError: the target is not a number.
        ValueError: none or both are given, or the value is out of range.
    """
    for name, value in (("target_speedup", speedup), ("target_psnr", psnr)):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TypeError(f"{name} is {value!r}; it must be a number")
    if (speedup is None) == (psnr is None):
        raise ValueError(f"target_speedup is {speedup} and target_psnr {psnr}; give one of the two")
    if speedup is not None:
        if not (math.isfinite(speedup) and speedup > 1):
            raise ValueError(f"target_speedup is {speedup}; it must be above 1, for instance 2.0")
        return Target("speedup", float(speedup))
    assert psnr is not None
    if not 0 < psnr < EQUAL_PSNR:
        raise ValueError(f"target_psnr is {psnr}; it must be in dB, above 0 and below 100")
    return Target("psnr", float(psnr))


def check_options(target: Target, kind: Kind, trials: int, rounds: int, refine: int) -> None:
    """Check the options of `calibrate`.

    Raises:
        ValueError: `kind` is unknown, a number is too small, or `refine` does not fit the target or
            the kind.
    """
    check_choice("kind", kind, get_args(Kind))
    check_int("trials", trials, at_least=1)
    check_int("rounds", rounds, at_least=1)
    check_int("refine", refine, at_least=0)
    if refine and (target.of != "speedup" or kind != "profile"):
        raise ValueError(
            f'refine is {refine}, with target {target} and kind="{kind}"; it improves a schedule '
            'of kind="profile" at its speedup: give target_speedup'
        )


def check_peak(peak: float | None) -> None:
    """Check that `peak` is the range of some values.

    Raises:
        ValueError: it is not finite, or not above 0.
    """
    if peak is not None and not (math.isfinite(peak) and peak > 0):
        raise ValueError(f"peak is {peak}; it must be above 0, the range of an outcome's values")


def check_range(outcome: StoredOutcome, peak: float | None) -> None:
    """Check that the values of an outcome are in 0 to 1 if `peak` does not give their range.

    Raises:
        ValueError: they are not.
    """
    if peak is None and (outcome.lowest < 0 or outcome.highest > 1):
        raise ValueError(
            f"an outcome has values from {outcome.lowest:.4g} to {outcome.highest:.4g}; generate "
            "frames in 0 to 1, or give peak=, the range that their values may have (255 for eight "
            "bits)"
        )


def split_cases(
    cases: Sequence[Case], held_out: Sequence[Case] | None, seed: int
) -> tuple[list[Case], list[Case]]:
    """Return the cases to fit to, and the held-out ones.

    Args:
        cases: all cases, or those to fit to if `held_out` is given.
        held_out: the held-out cases. None: a quarter of `cases`, drawn at random.
        seed: of that draw.

    Raises:
        ValueError: there are fewer than two cases to fit to, or no held-out one.
    """
    if held_out is None:
        fitted, apart = draw_held_out(cases, seed)
    else:
        fitted, apart = list(cases), list(held_out)
    if len(fitted) < FEWEST_CASES or not apart:
        raise ValueError(
            f"there are {len(fitted)} cases to calibrate with and {len(apart)} held-out ones; "
            f"calibration needs at least {FEWEST_CASES} and 1, and two dozen to be exact"
        )
    return fitted, apart


def draw_held_out(cases: Sequence[Case], seed: int) -> tuple[list[Case], list[Case]]:
    """Return the cases to fit to, and a random quarter, both in their order.

    The quarter is random because the last cases may all be of one kind.
    """
    count = min(max(1, round(HELD_OUT * len(cases))), len(cases))
    apart = set(random.Random(seed).sample(range(len(cases)), count))
    return (
        [case for i, case in enumerate(cases) if i not in apart],
        [case for i, case in enumerate(cases) if i in apart],
    )
