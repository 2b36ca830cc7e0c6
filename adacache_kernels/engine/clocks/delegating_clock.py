"""Pass the questions to a clock on to another clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .clock import Call, StepClock


class DelegatingClock:
    """A clock that behaves as another clock; subclasses change a part of it.

    Args:
        clock: the other clock.
    """

    def __init__(self, clock: StepClock) -> None:
        self._clock = clock

    @property
    def num_steps(self) -> int:
        """Return the steps of the present generation; 0 before the first; or `UNKNOWN_STEPS`."""
        return self._clock.num_steps

    @property
    def scheduler(self) -> Any:
        """Return the scheduler that is watched; None on a bare model."""
        return self._clock.scheduler

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""
        return self._clock.has_guidance

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown."""
        return self._clock.calls(with_guidance)

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """Return step and branch of the forward call that begins now; None if they are unknown."""
        return self._clock.next_call(context, arguments)

    def restart(self) -> None:
        """Begin a generation: the next call is its first one."""
        self._clock.restart()

    def detach(self) -> None:
        """Stop watching the scheduler."""
        self._clock.detach()
