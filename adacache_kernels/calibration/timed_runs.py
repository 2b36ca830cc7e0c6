"""Generations that are measured: their seconds in the transformer, their outcome, their steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np
from torch import nn

from ..api.patch import summary
from ..config.calibration_file import HeldOutResult
from ..measure.timing import timed_forwards
from .outcomes import Outcome, as_array, psnr, squared_error
from .record import Case, patched


@dataclass(frozen=True, eq=False)
class TimedRun:
    """One generation; `computed` is None where it was not patched."""

    outcome: Outcome
    step_seconds: list[float]
    computed: list[int] | None = None

    @property
    def seconds(self) -> float:
        """In the transformer."""
        return sum(self.step_seconds)


@dataclass
class Costs:
    """What steps cost, as parts of an unpatched step of the generation made right before."""

    computed: list[float] = field(default_factory=list)
    reused: list[float] = field(default_factory=list)

    def add(self, full: TimedRun, run: TimedRun) -> None:
        """A generation and its patched counterpart."""
        assert run.computed is not None
        whole, computed = statistics.mean(full.step_seconds), set(run.computed)
        by_kind: tuple[list[float], list[float]] = ([], [])
        for step, seconds in enumerate(run.step_seconds, start=1):
            by_kind[step not in computed].append(seconds)
        for found, seconds_of_kind in zip((self.computed, self.reused), by_kind, strict=True):
            if seconds_of_kind:
                found.append(statistics.mean(seconds_of_kind) / whole)

    def speedup(self, num_steps: int, computed: float) -> float:
        """steps / (computed * cost of a computed step + the others * cost of a reused step).

        The costs are medians over the generations. Where nothing was reused, that costs nothing.
        """
        of_computed, of_reused = self._typical
        return num_steps / (computed * of_computed + (num_steps - computed) * of_reused)

    def computed_for(self, num_steps: int, speedup: float) -> float:
        """Computed steps at which `speedup` is reached; 0 if it never is, all steps at most."""
        of_computed, of_reused = self._typical
        if of_computed <= of_reused:
            return 0.0
        count = num_steps * (1 / speedup - of_reused) / (of_computed - of_reused)
        return min(max(count, 0.0), float(num_steps))

    @property
    def _typical(self) -> tuple[float, float]:
        reused = statistics.median(self.reused) if self.reused else 0.0
        return statistics.median(self.computed), reused


@dataclass
class Runner(Generic[Case]):
    """Generates cases.

    Args:
        pipe: unpatched.
        generate: from a case to its outcome.
        num_steps: of a generation.
        settings: that are the same for all.
    """

    pipe: Any
    generate: Callable[[Case], Any]
    num_steps: int
    settings: Mapping[str, Any]

    def full(self, case: Case) -> TimedRun:
        """Unpatched."""
        with timed_forwards(self._transformer) as seconds:
            outcome = as_array(self.generate(case))
        return TimedRun(outcome, self._by_step(seconds))

    def patched(self, case: Case, settings: Mapping[str, Any]) -> TimedRun:
        """Patched.

        Raises:
            ValueError: the outcome is not finite.
        """
        with patched(self.pipe, {**self.settings, **settings}):
            with timed_forwards(self._transformer) as seconds:
                outcome = as_array(self.generate(case))
            computed = list(summary(self.pipe).computed_steps)
        if not np.isfinite(outcome).all():
            raise ValueError(f"the outcome of {case!r} is not finite with {dict(settings)}")
        return TimedRun(outcome, self._by_step(seconds), computed)

    @property
    def _transformer(self) -> nn.Module:
        if isinstance(self.pipe, nn.Module):
            return self.pipe
        transformer: nn.Module = self.pipe.transformer
        return transformer

    def _by_step(self, seconds: Sequence[float]) -> list[float]:
        """Of the calls of each step; evenly divided where steps differ in their calls."""
        parts = np.array_split(np.asarray(seconds), self.num_steps)
        return [float(part.sum()) for part in parts]


@dataclass(frozen=True)
class RunComparison:
    """A patched generation against its unpatched counterpart."""

    speedup: float
    psnr: float
    computed: int

    @classmethod
    def of(cls, full: TimedRun, run: TimedRun, peak: float) -> RunComparison:
        """What two generations of a case show."""
        quality = psnr(squared_error(run.outcome, full.outcome), peak)
        return cls(full.seconds / run.seconds, quality, len(run.computed or []))


def reached(found: Sequence[RunComparison], costs: Costs, num_steps: int) -> HeldOutResult:
    """What the cases amount to; `costs` are theirs."""
    computed = statistics.mean(one.computed for one in found)
    quality = [one.psnr for one in found]
    spread = statistics.stdev(quality) if len(quality) > 1 else 0.0
    return HeldOutResult(
        cases=len(found),
        # Not of the sums of seconds: on a machine with other work, three of 27 generations took
        # twice their time, which moved the speedup by 4 %.
        speedup=costs.speedup(num_steps, computed),
        slowest=min(one.speedup for one in found),
        psnr=statistics.mean(quality),
        psnr_error=spread / math.sqrt(len(quality)),
        worst_psnr=min(quality),
        computed_steps=computed,
    )
