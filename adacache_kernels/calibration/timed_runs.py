"""Timed generations: their outcome, their seconds in the transformer, their computed steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np
from torch import nn

from ..api.patch import summary
from ..measure.timing import timed_forwards
from .outcomes import Outcome, as_array, squared_error
from .record import Case, patched


@dataclass(frozen=True, eq=False)
class TimedRun:
    """One generation.

    Args:
        outcome: its result.
        step_seconds: seconds in the transformer, by step.
        computed: its computed steps; None if it was not patched.
    """

    outcome: Outcome
    step_seconds: list[float]
    computed: list[int] | None = None


@dataclass(frozen=True)
class TimedPair:
    """An unpatched generation and its patched counterpart.

    Args:
        full_seconds, seconds: seconds in the transformer, by step, of the two.
        computed: computed steps of the patched one.
        error: mean squared error of its outcome.
    """

    full_seconds: list[float]
    seconds: list[float]
    computed: list[int]
    error: float

    @property
    def speedup(self) -> float:
        """Return the speedup of the transformer."""
        return sum(self.full_seconds) / sum(self.seconds)


@dataclass
class StepCosts:
    """Costs of computed and reused steps, as parts of a mean unpatched step.

    Each is the mean over one generation, compared with the unpatched generation next to it.
    """

    computed: list[float] = field(default_factory=list)
    reused: list[float] = field(default_factory=list)

    def add(self, pair: TimedPair) -> None:
        """Add an unpatched generation and its patched counterpart."""
        whole, steps = statistics.mean(pair.full_seconds), set(pair.computed)
        computed: list[float] = []
        reused: list[float] = []
        for step, seconds in enumerate(pair.seconds, start=1):
            (computed if step in steps else reused).append(seconds)
        if computed:
            self.computed.append(statistics.mean(computed) / whole)
        if reused:
            self.reused.append(statistics.mean(reused) / whole)

    def speedup(self, num_steps: int, computed: float) -> float:
        """Return steps / (computed * cost of a computed step + the others * cost of a reused one).

        The costs are medians over the generations. A reused step costs 0 if none was measured.
        """
        computed_cost, reused_cost = self._medians()
        return num_steps / (computed * computed_cost + (num_steps - computed) * reused_cost)

    def computed_for(self, num_steps: int, speedup: float) -> float:
        """Return the number of computed steps that gives `speedup`, from 0 to all steps."""
        computed_cost, reused_cost = self._medians()
        if computed_cost <= reused_cost:
            return 0.0
        count = num_steps * (1 / speedup - reused_cost) / (computed_cost - reused_cost)
        return min(max(count, 0.0), float(num_steps))

    def _medians(self) -> tuple[float, float]:
        reused = statistics.median(self.reused) if self.reused else 0.0
        return statistics.median(self.computed), reused


@dataclass
class Runner(Generic[Case]):
    """A function that generates cases, and times them.

    Args:
        pipe: unpatched pipeline, or bare model.
        generate: from a case to its outcome.
        num_steps: of a generation.
        settings: for every patched generation.
    """

    pipe: Any
    generate: Callable[[Case], Any]
    num_steps: int
    settings: Mapping[str, Any]

    def full(self, case: Case) -> TimedRun:
        """Generate a case unpatched."""
        with timed_forwards(self._transformer) as seconds:
            outcome = as_array(self.generate(case))
        return TimedRun(outcome, self._by_step(seconds))

    def patched(self, case: Case, settings: Mapping[str, Any]) -> TimedRun:
        """Generate a case patched with `settings`, in addition to the runner's.

        Raises:
            ValueError: the outcome is not finite.
        """
        with patched(self.pipe, {**self.settings, **settings}):
            with timed_forwards(self._transformer) as seconds:
                outcome = as_array(self.generate(case))
            computed = list(summary(self.pipe).computed_steps)
        if not np.isfinite(outcome).all():
            raise ValueError(
                f"the outcome of {case!r} is not finite with {dict(settings)}, computed steps "
                f"{computed}"
            )
        return TimedRun(outcome, self._by_step(seconds), computed)

    def compared(
        self, case: Case, settings: Mapping[str, Any], *, patched_first: bool = False
    ) -> TimedPair:
        """Generate a case unpatched and patched, one after the other.

        Raises:
            ValueError: the outcome is not finite, or the two have different shapes.
        """
        if patched_first:
            run, full = self.patched(case, settings), self.full(case)
        else:
            full, run = self.full(case), self.patched(case, settings)
        error = squared_error(run.outcome, full.outcome)
        return TimedPair(full.step_seconds, run.step_seconds, run.computed or [], error)

    @property
    def _transformer(self) -> nn.Module:
        if isinstance(self.pipe, nn.Module):
            return self.pipe
        transformer: nn.Module = self.pipe.transformer
        return transformer

    def _by_step(self, seconds: Sequence[float]) -> list[float]:
        """Return the seconds of each step, for steps of equally many calls."""
        parts = np.array_split(np.asarray(seconds), self.num_steps)
        return [float(part.sum()) for part in parts]
