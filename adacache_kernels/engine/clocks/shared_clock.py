"""The clock of engines that an enclosing engine runs."""

from __future__ import annotations

from .clock import StepClock
from .delegating_clock import DelegatingClock


class SharedClock(DelegatingClock):
    """A view of the enclosing engine's clock, which that engine alone restarts and detaches.

    Args:
        clock: the clock of the enclosing engine.
        calls_per_step: the calls that each engine has in a step; None: as many as the clock says.
    """

    def __init__(self, clock: StepClock, calls_per_step: int | None = None) -> None:
        super().__init__(clock)
        self._calls_per_step = calls_per_step

    def calls(self, with_guidance: int) -> int | None:
        """Return the calls of one engine in a step; None if their number is unknown."""
        return self._calls_per_step or super().calls(with_guidance)

    def restart(self) -> None:
        """Do nothing: the enclosing engine restarts the clock."""

    def detach(self) -> None:
        """Do nothing: the enclosing engine detaches the clock."""
