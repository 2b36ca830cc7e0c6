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
from .outcomes import Outcome, as_array
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

    @property
    def seconds(self) -> float:
        """Return the seconds in the transformer."""
        return sum(self.step_seconds)


@dataclass
class StepCosts:
    """Costs of computed and reused steps, as parts of a mean unpatched step.

    Each is the mean over one generation, compared with the unpatched generation next to it.
    """

    computed: list[float] = field(default_factory=list)
    reused: list[float] = field(default_factory=list)

    def add(self, full: TimedRun, run: TimedRun) -> None:
        """Add an unpatched generation and its patched counterpart."""
        assert run.computed is not None
        whole, steps = statistics.mean(full.step_seconds), set(run.computed)
        computed: list[float] = []
        reused: list[float] = []
        for step, seconds in enumerate(run.step_seconds, start=1):
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
