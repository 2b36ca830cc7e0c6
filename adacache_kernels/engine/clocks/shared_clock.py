"""The clock of engines that an enclosing engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .clock import Call, StepClock


class SharedClock:
    """A view of the enclosing engine's clock, which that engine alone restarts and detaches.

    Args:
        clock: the clock of the enclosing engine.
        calls_per_step: the calls that each engine has in a step; None: as many as the clock says.
    """

    def __init__(self, clock: StepClock, calls_per_step: int | None = None) -> None:
        self._clock = clock
        self._calls_per_step = calls_per_step

    @property
    def num_steps(self) -> int:
        """Return the steps of the present generation."""
        return self._clock.num_steps

    @property
    def scheduler(self) -> Any:
        """Return the scheduler that is watched, None for a bare model."""
        return self._clock.scheduler

    @property
    def has_guidance(self) -> bool | None:
        """Return whether there is classifier-free guidance, None if that is unknown."""
        return self._clock.has_guidance

    def calls(self, with_guidance: int) -> int | None:
        """Return the calls of one engine in a step, None if their number is unknown."""
        return self._calls_per_step or self._clock.calls(with_guidance)

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """Return the call that begins now, as the enclosing engine's clock does."""
        return self._clock.next_call(context, arguments)

    def restart(self) -> None:
        """Do nothing: the enclosing engine restarts the clock."""

    def detach(self) -> None:
        """Do nothing: the enclosing engine detaches the clock."""
