"""The cases that settings are fitted to: generated with settings, and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Generic

import numpy as np

from .checkpoint import Asked, Checkpoint, Measurement
from .jobs import Job, packed_jobs
from .outcomes import capped_psnr
from .record import CalibrationRecording, Case, Progress
from .timed_runs import Runner, StepCosts, TimedPair

Settings = dict[str, Any]


@dataclass
class MeasuredCases(Generic[Case]):
    """Recorded cases, which can be generated again with any settings.

    Args:
        cases: arguments of the runner.
        recording: of the same cases, in the same order.
        runner: generates a case.
        peak: range of the values of an outcome.
        progress: called after each generation.
        checkpoint: stores the measurements.
        held_out: more cases, which are not recorded.
        costs: costs of the steps in all timed generations so far.
        told: number of lists of jobs that were told to other ranks.
    """

    cases: Sequence[Case]
    recording: CalibrationRecording
    runner: Runner[Case]
    peak: float
    progress: Progress
    checkpoint: Checkpoint
    held_out: Sequence[Case] = ()
    costs: StepCosts = field(default_factory=StepCosts)
    told: int = 0

    @property
    def num_steps(self) -> int:
        """Return the number of steps of a generation."""
        return self.recording.num_steps

    def squared_errors(self, generations: Sequence[tuple[int, Settings]]) -> Iterator[float]:
        """Generate cases, and yield the mean squared error of each outcome.

        Args:
            generations: the index of each case, and its settings.

        Raises:
            ValueError: the outcome is not finite.
        """
        jobs = [Job("error", index, settings) for index, settings in generations]
        for found in self._recall(jobs):
            yield float(found.values["error"])

    def pairs(
        self, indices: Sequence[int], settings: Settings, *, alternate: bool = False
    ) -> Iterator[TimedPair]:
        """Generate cases unpatched and patched, and yield the measurements of each.

        Args:
            indices: of the cases; those of the held-out ones come after all others.
            settings: for `patch`.
            alternate: the patched generation comes first in every second case.

        Raises:
            ValueError: the outcome is not finite.
        """
        jobs = [
            Job("pair", index, settings, alternate and bool(place % 2))
            for place, index in enumerate(indices)
        ]
        for found in self._recall(jobs):
            yield TimedPair(**found.values)

    def held_out_pairs(self, settings: Settings) -> Iterator[TimedPair]:
        """Generate the held-out cases unpatched and patched, and yield the measurements of each.

        The patched generation comes first in every second case.
        """
        first = len(self.cases)
        indices = range(first, first + len(self.held_out))
        return self.pairs(indices, settings, alternate=True)

    def asked(self, job: Job) -> Asked:
        """Return the key of a job, and the function that does it."""
        case = [*self.cases, *self.held_out][job.case]
        return job.key(case), partial(self._measure, job, case)

    def _recall(self, jobs: Sequence[Job]) -> Iterator[Measurement]:
        """Yield the measurements of jobs. The other ranks receive the jobs too."""
        work = self.checkpoint.work
        if work.size > 1:
            work.tell(f"jobs-{self.told}", packed_jobs(jobs))
            self.told += 1
        return self.checkpoint.recall_each([self.asked(job) for job in jobs])

    def _measure(self, job: Job, case: Case) -> Measurement:
        settings = dict(job.settings)
        if job.kind == "pair":
            pair = self.runner.compared(case, settings, patched_first=job.patched_first)
            return Measurement(asdict(pair))
        run = self.runner.patched(case, settings)
        recorded = self.recording.cases[job.case]
        return Measurement({"error": recorded.outcome.squared_error(run.outcome)})

    def psnrs(
        self, settings: dict[str, Any], doing: str, at_most: int | None = None
    ) -> list[float]:
        """Return the PSNR in dB of every case, or of `at_most` cases spread over all of them."""
        psnrs: list[float] = []
        chosen = self._chosen(at_most or len(self.cases))
        for error in self.squared_errors([(index, settings) for index in chosen]):
            psnrs.append(capped_psnr(error, self.peak))
            self.progress(doing, len(psnrs), len(chosen))
        return psnrs

    def computed_counts(self, settings: dict[str, Any], doing: str, at_most: int) -> list[float]:
        """Return the numbers of computed steps of `at_most` cases, and add their step costs.

        Each case is generated unpatched and then patched.
        """
        chosen = self._chosen(at_most)
        counts: list[float] = []
        for pair in self.pairs(chosen, settings):
            self.costs.add(pair)
            counts.append(len(pair.computed))
            self.progress(doing, len(counts), len(chosen))
        return counts

    def _chosen(self, at_most: int) -> list[int]:
        """Return indices of `at_most` cases, evenly spread over all of them."""
        count = min(at_most, len(self.cases))
        return [round(index) for index in np.linspace(0, len(self.cases) - 1, count)]
