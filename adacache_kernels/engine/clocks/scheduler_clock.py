"""Assign the steps of a pipeline by watching its scheduler."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...messages import warn_user
from .clock import Call
from .watched_method import WatchedMethod

# A pipeline runs at most four branches in a step (guidance with two perturbed passes). More unnamed
# calls without a scheduler step mean that the clock does not see the steps.
MOST_CALLS_PER_STEP = 8

IDLE_STEPS_FOR_WARNING = 4
"""Scheduler steps without a call of the model, after which the user is warned."""


class SchedulerClock:
    """The clock of a pipeline: `set_timesteps` begins a generation, `step` ends a step.

    Args:
        pipeline: an object with a `.scheduler`.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._watched: list[WatchedMethod] = []
        self.scheduler: Any = None
        """The scheduler that is watched; None after `detach`."""
        self.generation = 1
        """The number of generations so far, this one included."""
        self._num_steps = 0
        self._thread = threading.get_ident()
        self._steps_done = 0
        self._branches: list[str] = []
        self._has_started = False
        self._idle_steps = 0
        self._attach(pipeline.scheduler)

    @property
    def num_steps(self) -> int:
        """Return the steps of the present generation; 0 before the first."""
        return self._num_steps

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""
        value = getattr(self._pipeline, "do_classifier_free_guidance", None)
        return None if value is None else bool(value)

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown."""
        if self.has_guidance is None:
            return None
        return with_guidance if self.has_guidance else 1

    def restart(self) -> None:
        """Begin a generation: the next call is its first one."""
        self.generation += 1
        self._thread = threading.get_ident()
        self._steps_done = 0
        self._branches = []
        self._has_started = False
        self._idle_steps = 0

    def detach(self) -> None:
        """Restore the methods of the scheduler."""
        for method in self._watched:
            method.remove()
        self._watched = []
        self.scheduler = None

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """Return step and branch of the forward call that begins now.

        Returns:
            None if all announced steps are over, or if the scheduler makes no steps.
        """
        if self._pipeline.scheduler is not self.scheduler:
            self._follow_new_scheduler()
        if not self._has_started:
            self._num_steps = self._count_steps()
        if self._steps_done >= self._num_steps or len(self._branches) >= MOST_CALLS_PER_STEP:
            return None
        first_in_step = not self._branches
        first_in_generation = not self._has_started
        self._has_started = True
        branch = self._branch(context)
        self._branches.append(branch)
        return Call(self._steps_done + 1, branch, first_in_generation, first_in_step)

    def _branch(self, context: str | None) -> str:
        if context is None:
            return str(len(self._branches))
        if context not in self._branches:
            return context
        return f"{context}/{len(self._branches)}"

    def _count_steps(self) -> int:
        timesteps = getattr(self.scheduler, "timesteps", None)
        scheduled = 0 if timesteps is None else len(timesteps)
        # Pipelines store their number of steps. For video to video it is less than the scheduler's.
        # Where frames begin one after another, it is more.
        stored = getattr(self._pipeline, "_num_timesteps", None)
        return stored if isinstance(stored, int) and stored > 0 else scheduled

    def _follow_new_scheduler(self) -> None:
        self.detach()
        self.restart()
        self._attach(self._pipeline.scheduler)

    def _attach(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._watched = [
            WatchedMethod(scheduler, name, after, partial(self._action_of_copy, after))
            for name, after in (("set_timesteps", self._begin_generation), ("step", self._end_step))
        ]

    def _action_of_copy(self, after: Callable[[], None]) -> Callable[[], None] | None:
        """Return what a copy of the scheduler, made now, calls after its method."""
        # A copy that is made in the middle of a generation does not make the steps of that one.
        is_under_way = self._has_started and self._steps_done < self._num_steps
        return None if is_under_way else partial(self._act_for_copy, weakref.WeakMethod(after))

    @staticmethod
    def _act_for_copy(after: weakref.WeakMethod[Any]) -> None:
        """Count a step that a copy made: diffusion forcing uses one copy for each frame."""
        action = after()
        # A copy may outlive the pipeline. A copy in another thread serves another pipeline.
        if action is not None and threading.get_ident() == action.__self__._thread:
            action()

    def _begin_generation(self) -> None:
        # A number from an earlier run must not count for a pipeline that shares the scheduler.
        if hasattr(self._pipeline, "_num_timesteps"):
            self._pipeline._num_timesteps = None
        self.restart()

    def _end_step(self) -> None:
        # A scheduler step without a forward call (a pipeline's warm-up) is no step of the model.
        if self._branches:
            self._steps_done += 1
            self._branches = []
        elif not self._has_started:
            self._count_idle_step()

    def _count_idle_step(self) -> None:
        self._idle_steps += 1
        if self._idle_steps == IDLE_STEPS_FOR_WARNING:
            warn_user(
                f"adacache_kernels: the scheduler made {self._idle_steps} steps without a call of "
                f"the patched transformer of this {type(self._pipeline).__name__}, so nothing is "
                "cached. Was the transformer replaced, or its forward? Unpatch it and patch it "
                "again"
            )
