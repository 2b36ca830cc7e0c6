"""The cases that settings are fitted to: generated with settings, and measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Generic

import numpy as np

from ..schedule.profile import Profile
from .checkpoint import Checkpoint, Measurement
from .outcomes import capped_psnr
from .record import CalibrationRecording, Case, Progress
from .timed_runs import Runner, StepCosts, TimedPair


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
        costs: costs of the steps in all timed generations so far.
    """

    cases: Sequence[Case]
    recording: CalibrationRecording
    runner: Runner[Case]
    peak: float
    progress: Progress
    checkpoint: Checkpoint
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
        case, recorded = self.cases[index], self.recording.cases[index]

        def measure() -> Measurement:
            run = self.runner.patched(case, settings)
            return Measurement({"error": recorded.outcome.squared_error(run.outcome)})

        found = self.checkpoint.recall(_key("error", case, settings), measure)
        return float(found.values["error"])

    def pair(
        self, case: Case, settings: dict[str, Any], *, patched_first: bool = False
    ) -> TimedPair:
        """Generate a case unpatched and patched, and return the measurements.

        Raises:
            ValueError: the outcome is not finite.
        """

        def measure() -> Measurement:
            pair = self.runner.compared(case, settings, patched_first=patched_first)
            return Measurement(asdict(pair))

        found = self.checkpoint.recall(_key("pair", case, settings), measure)
        return TimedPair(**found.values)

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
            pair = self.pair(self.cases[index], settings)
            self.costs.add(pair)
            counts.append(len(pair.computed))
            self.progress(doing, len(counts), len(chosen))
        return counts

    def _chosen(self, at_most: int) -> list[int]:
        """Return indices of `at_most` cases, evenly spread over all of them."""
        count = min(at_most, len(self.cases))
        return [round(index) for index in np.linspace(0, len(self.cases) - 1, count)]


def _key(kind: str, case: object, settings: Mapping[str, Any]) -> str:
    """Return the key of a measurement; a digest identifies its profile."""
    plain = dict(settings)
    if plain.get("profile") is not None:
        plain["profile"] = _digest(plain["profile"])
    return f"{kind} of {case!r} with {sorted(plain.items())}"


@lru_cache(maxsize=4)
def _digest(profile: Profile) -> str:
    return hashlib.sha256(json.dumps(profile.to_dict(), sort_keys=True).encode()).hexdigest()
