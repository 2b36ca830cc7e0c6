"""The result of a calibration on held-out cases."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config.calibration_file import HeldOutResult
from .measured_cases import MeasuredCases
from .outcomes import capped_psnr
from .record import Case
from .timed_runs import StepCosts, TimedPair


@dataclass(frozen=True)
class RunComparison:
    """A patched generation against its unpatched counterpart.

    Args:
        speedup: of the transformer.
        psnr: in dB.
        computed: number of computed steps.
    """

    speedup: float
    psnr: float
    computed: int

    @classmethod
    def of(cls, pair: TimedPair, peak: float) -> RunComparison:
        """Compare the two generations of a case, whose outcomes have the range `peak`."""
        return cls(pair.speedup, capped_psnr(pair.error, peak), len(pair.computed))


def run_held_out(
    measured: MeasuredCases[Case], settings: dict[str, Any]
) -> tuple[list[RunComparison], StepCosts]:
    """Generate every held-out case unpatched and patched, and compare the two.

    The patched generation comes first in every second case.

    Args:
        measured: the cases that the settings were fitted to, and the held-out ones.
        settings: for `patch`.
    """
    comparisons, costs = [], StepCosts()
    for pair in measured.held_out_pairs(settings):
        comparisons.append(RunComparison.of(pair, measured.peak))
        costs.add(pair)
        measured.progress("held-out cases", len(comparisons), len(measured.held_out))
    return comparisons, costs


def held_out_result(
    comparisons: Sequence[RunComparison], costs: StepCosts, num_steps: int
) -> HeldOutResult:
    """Return the means and extremes of the cases.

    Args:
        comparisons: one for each case.
        costs: of the same generations.
        num_steps: of a generation.
    """
    computed = statistics.mean(case.computed for case in comparisons)
    psnrs = [case.psnr for case in comparisons]
    spread = statistics.stdev(psnrs) if len(psnrs) > 1 else 0.0
    return HeldOutResult(
        cases=len(comparisons),
        # From the costs, not from the sums of seconds: on a machine with other work, three of 27
        # generations took twice their time, which changed the speedup by 4 %.
        speedup=costs.speedup(num_steps, computed),
        slowest=min(case.speedup for case in comparisons),
        psnr=statistics.mean(psnrs),
        psnr_error=spread / math.sqrt(len(psnrs)),
        worst_psnr=min(psnrs),
        computed_steps=computed,
    )
