"""Share one generation among several models that run its steps one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .clock import Call, StepClock
from .delegating_clock import DelegatingClock
from .scheduler_clock import SchedulerClock


class ExpertClock(DelegatingClock):
    """The clock of one of several models (experts) that share a generation.

    Steps are those of the generation, whichever model runs them. For each model, its own first call
    begins the generation.

    Args:
        shared: the clock of the pipeline.
    """

    def __init__(self, shared: SchedulerClock) -> None:
        super().__init__(shared)
        self._shared = shared
        self._generation = 0

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """Return step and branch of the forward call that begins now; None if they are unknown."""
        call = super().next_call(context, arguments)
        if call is None:
            return None
        is_first = self._shared.generation != self._generation
        self._generation = self._shared.generation
        return replace(call, first_in_generation=is_first)


def clocks_of_experts(clock: StepClock, count: int) -> list[StepClock]:
    """Return one clock for each of `count` models that share a generation.

    Raises:
        TypeError: there are several models, and `clock` watches no scheduler.
    """
    if count == 1:
        return [clock]
    if not isinstance(clock, SchedulerClock):
        raise TypeError(
            f"{count} models share a generation, but {type(clock).__name__} watches no scheduler; "
            "patch their pipeline"
        )
    return [ExpertClock(clock) for _ in range(count)]
