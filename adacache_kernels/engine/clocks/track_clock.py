"""The clock of an engine: the generation that the engine runs."""

from __future__ import annotations

from typing import Any

from .clock import EngineClock
from .generation_track import GenerationTrack
from .step_clock import StepClock


class TrackClock:
    """The generation that an engine runs, or the next one before there is any.

    Args:
        clock: the clock of the patch.
    """

    def __init__(self, clock: StepClock) -> None:
        self._clock = clock
        self.track: GenerationTrack | None = None

    @property
    def num_steps(self) -> int:
        """Return the steps of the generation; 0 before the first; or `UNKNOWN_STEPS`."""
        return self._clock.num_steps if self.track is None else self.track.num_steps

    @property
    def scheduler(self) -> Any:
        """Return the scheduler of the generation; None if it is not known."""
        if self.track is not None:
            return self.track.scheduler
        return None if self._clock.watch is None else self._clock.watch.scheduler

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""
        return None if self.track is None else self.track.has_guidance

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown."""
        given = self._clock.calls_per_step
        if given is not None:
            # 1 is also given by users who name branches with cache_context.
            return given if given > 1 else None
        if self.has_guidance is None:
            return None
        return with_guidance if self.has_guidance else 1


class BranchClock:
    """A view of an engine's clock for the engine of one branch, which has one call in a step.

    Args:
        clock: the clock of the enclosing engine.
    """

    def __init__(self, clock: EngineClock) -> None:
        self._clock = clock

    @property
    def num_steps(self) -> int:
        """Return the steps of the generation; 0 before the first; or `UNKNOWN_STEPS`."""
        return self._clock.num_steps

    @property
    def scheduler(self) -> Any:
        """Return the scheduler of the generation; None if it is not known."""
        return self._clock.scheduler

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""
        return self._clock.has_guidance

    def calls(self, with_guidance: int) -> int:
        """Return 1."""
        return 1
