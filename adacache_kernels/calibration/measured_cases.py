"""The cases that settings are fitted to: generated with settings, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from .outcomes import capped_psnr
from .record import CalibrationRecording, Case, Progress
from .timed_runs import Runner, StepCosts


@dataclass
class MeasuredCases(Generic[Case]):
    """Recorded cases, which can be generated again with any settings.

    Args:
        cases: arguments of the runner.
        recording: of the same cases, in the same order.
        runner: generates a case.
        peak: range of the values of an outcome.
        progress: called after each generation.
        costs: costs of the steps in all timed generations so far.
    """

    cases: Sequence[Case]
    recording: CalibrationRecording
    runner: Runner[Case]
    peak: float
    progress: Progress
    costs: StepCosts = field(default_factory=StepCosts)

    @property
    def num_steps(self) -> int:
        """Return the number of steps of a generation."""
        return self.recording.num_steps

    def squared_error(self, index: int, settings: dict[str, Any]) -> float:
        """Generate one case, and return the mean squared error of its outcome.

        Raises:
            ValueError: the outcome is not finite.
        """
        run = self.runner.patched(self.cases[index], settings)
        return self.recording.cases[index].outcome.squared_error(run.outcome)

    def psnrs(
        self, settings: dict[str, Any], doing: str, at_most: int | None = None
    ) -> list[float]:
        """Return the PSNR in dB of every case, or of `at_most` cases spread over all of them."""
        psnrs: list[float] = []
        chosen = self._chosen(at_most or len(self.cases))
        for index in chosen:
            psnrs.append(capped_psnr(self.squared_error(index, settings), self.peak))
            self.progress(doing, len(psnrs), len(chosen))
        return psnrs

    def computed_counts(self, settings: dict[str, Any], doing: str, at_most: int) -> list[float]:
        """Return the numbers of computed steps of `at_most` cases, and add their step costs.

        Each case is generated unpatched and then patched.
        """
        chosen = self._chosen(at_most)
        counts: list[float] = []
        for index in chosen:
            full = self.runner.full(self.cases[index])
            run = self.runner.patched(self.cases[index], settings)
            self.costs.add(full, run)
            counts.append(len(run.computed or []))
            self.progress(doing, len(counts), len(chosen))
        return counts

    def _chosen(self, at_most: int) -> list[int]:
        """Return indices of `at_most` cases, evenly spread over all of them."""
        count = min(at_most, len(self.cases))
        return [round(index) for index in np.linspace(0, len(self.cases) - 1, count)]
