"""The two kinds of target: how a speedup and a PSNR are predicted and measured."""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic

from ..config.calibration_file import Target
from ..schedule import evenly_spread
from .measured_cases import MeasuredCases
from .record import Case
from .simulate import SimulatedCase

# Cases that the costs of steps are measured with before the first round, and cases that a speedup
# is measured with in each round. A PSNR needs all of them.
COST_CASES, ROUND_CASES = 6, 12
# Part of the steps that is computed in the first round for a PSNR.
FIRST_PART = 0.4


class Objective(ABC, Generic[Case]):
    """One kind of target.

    Args:
        target: the value to reach.
        measured: the cases that settings are fitted to.
    """

    def __init__(self, target: Target, measured: MeasuredCases[Case]) -> None:
        self.target = target
        self._cases = measured

    @property
    @abstractmethod
    def first_count(self) -> float:
        """Return the number of computed steps in the first round."""

    @property
    @abstractmethod
    def even_part(self) -> float:
        """Return the part of the steps that a schedule of evenly spread steps computes."""

    @property
    def even_steps(self) -> list[int]:
        """Return evenly spread steps, about as many as the target needs."""
        steps = self._cases.num_steps
        return evenly_spread(min(steps, max(4, round(self.even_part * steps))), steps)

    def prepare(self, settings: dict[str, Any]) -> None:
        """Measure what predictions need, before the first round."""

    @abstractmethod
    def predict(self, cases: Sequence[SimulatedCase]) -> float:
        """Return the value that simulated cases would reach."""

    @abstractmethod
    def measure(self, settings: dict[str, Any], doing: str) -> list[float]:
        """Generate cases with `settings` and return a measurement of each."""

    @abstractmethod
    def value(self, measurements: Sequence[float]) -> float:
        """Return the value that measured cases reach."""


class SpeedupObjective(Objective[Case]):
    """A speedup, computed from numbers of computed steps and measured costs of a step."""

    @property
    def first_count(self) -> float:
        """Return the number of computed steps that gives the speedup."""
        return self._cases.costs.computed_for(self._cases.num_steps, self.target.value)

    @property
    def even_part(self) -> float:
        """Return the part that gives the speedup if reused steps cost nothing."""
        return 1 / self.target.value

    def prepare(self, settings: dict[str, Any]) -> None:
        """Measure the costs of a step."""
        even = settings | {"schedule": self.even_steps}
        self._cases.computed_counts(even, "costs of steps", COST_CASES)

    def predict(self, cases: Sequence[SimulatedCase]) -> float:
        """Return the speedup of simulated cases."""
        return self.value([len(case.steps) for case in cases])

    def measure(self, settings: dict[str, Any], doing: str) -> list[float]:
        """Return the numbers of computed steps, and add to the measured costs."""
        return self._cases.computed_counts(settings, doing, ROUND_CASES)

    def value(self, measurements: Sequence[float]) -> float:
        """Return the speedup of cases with these numbers of computed steps.

        It uses all costs measured so far, so it gets more exact with every round.
        """
        return self._cases.costs.speedup(self._cases.num_steps, statistics.mean(measurements))


class PSNRObjective(Objective[Case]):
    """A mean PSNR over the cases, in dB."""

    @property
    def first_count(self) -> float:
        """Return a fixed part of the steps."""
        return FIRST_PART * self._cases.num_steps

    @property
    def even_part(self) -> float:
        """Return the part that the first round computes."""
        return FIRST_PART

    def predict(self, cases: Sequence[SimulatedCase]) -> float:
        """Return the mean PSNR of simulated cases in dB, up to a constant."""
        return predicted_psnr(cases)

    def measure(self, settings: dict[str, Any], doing: str) -> list[float]:
        """Return the PSNR in dB of every case."""
        return self._cases.psnrs(settings, doing)

    def value(self, measurements: Sequence[float]) -> float:
        """Return the mean PSNR in dB."""
        return statistics.mean(measurements)


def predicted_psnr(cases: Sequence[SimulatedCase]) -> float:
    """Return the mean PSNR in dB up to a constant; infinite if most cases compute every step."""
    costs = [case.cost for case in cases if case.cost > 0]
    if 2 * len(costs) < len(cases):
        return math.inf
    return -10 * statistics.mean(math.log10(cost) for cost in costs)


def make_objective(target: Target, measured: MeasuredCases[Case]) -> Objective[Case]:
    """Return the objective of a target."""
    if target.of == "speedup":
        return SpeedupObjective(target, measured)
    return PSNRObjective(target, measured)
