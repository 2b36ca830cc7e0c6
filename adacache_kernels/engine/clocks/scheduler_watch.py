"""Watch the scheduler of a pipeline: `set_timesteps` begins a generation, `step` ends a step."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ...messages import warn_user
from ..evidence.schedule_place import SchedulePlace, schedule_place
from ..evidence.tensor_identity import storage_of
from .watched_method import WatchedMethod

IDLE_STEPS_FOR_WARNING = 4
"""Scheduler steps without a call of the model, after which the user is warned."""

_CALLS: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The calls of patched models around the steps of each scheduler.

Several pipelines may share a scheduler, so a step without a call of one model may have a call of
another one."""


class SchedulerWatch:
    """The steps of a pipeline, as its scheduler shows them.

    Args:
        pipeline: an object with a `.scheduler`.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self._watched: list[WatchedMethod] = []
        self.scheduler: Any = None
        """The scheduler that is watched; None after `detach`."""
        self.generation = 0
        """The number of generations so far."""
        self._has_begun = False
        self.thread = threading.get_ident()
        """The thread that began the generation."""
        self.steps_done = 0
        self.num_steps = 0
        """The steps of the generation, counted at its first call; 0 before."""
        self._has_called = False
        self._calls_before = 0
        self._idle_steps = 0
        self._first_index: int | None = None
        self._attach(pipeline.scheduler)

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""
        value = getattr(self.pipeline, "do_classifier_free_guidance", None)
        return None if value is None else bool(value)

    @property
    def is_under_way(self) -> bool:
        """Return True if the generation has steps left."""
        return self._has_begun and self.steps_done < self.planned_steps

    @property
    def planned_steps(self) -> int:
        """Return the steps of the generation as far as they are known now."""
        return self.num_steps or self._count_steps()

    def follow(self) -> None:
        """Watch the scheduler that the pipeline has now, if it is another one."""
        if self.pipeline.scheduler is not self.scheduler:
            self.detach()
            self._restart()
            self._attach(self.pipeline.scheduler)

    def detach(self) -> None:
        """Restore the methods of the scheduler."""
        for method in self._watched:
            method.remove()
        self._watched = []
        self.scheduler = None

    def note_call(self, *, is_own: bool) -> None:
        """Note a call of the model.

        Args:
            is_own: True if the call belongs to the generation of this scheduler.
        """
        _CALLS[self.scheduler] = _CALLS.get(self.scheduler, 0) + 1
        if is_own and not self._has_called:
            self._has_called = True
            if self.num_steps == 0:
                self.num_steps = self._count_steps()
                self._first_index = self._index_of_pipeline()

    def restart(self) -> None:
        """Forget the generation: the next call is the first one of another."""
        self._restart()
        self._has_begun = False

    def is_place_of(self, place: SchedulePlace) -> bool:
        """Return True if the place lies in the timesteps of this scheduler."""
        timesteps = getattr(self.scheduler, "timesteps", None)
        return isinstance(timesteps, Tensor) and storage_of(timesteps) == place.storage

    def stored_num_steps(self) -> int | None:
        """Return the number of steps that the pipeline has stored for this generation."""
        # Pipelines store their number of steps. For video to video it is less than the scheduler's.
        # Where frames begin one after another, it is more.
        stored = getattr(self.pipeline, "_num_timesteps", None)
        return stored if isinstance(stored, int) and stored > 0 else None

    @property
    def is_contradicted(self) -> bool:
        """Return True if the pipeline is at another step of its loop than the scheduler.

        That is so after a run that was stopped: pipelines store the timestep of their present step.
        """
        index = self._index_of_pipeline()
        if index is None or self._first_index is None:
            return False
        return index != self._first_index + self.steps_done

    def _index_of_pipeline(self) -> int | None:
        place = schedule_place(getattr(self.pipeline, "_current_timestep", None))
        return place.index if place is not None and self.is_place_of(place) else None

    def _count_steps(self) -> int:
        timesteps = getattr(self.scheduler, "timesteps", None)
        scheduled = 0 if timesteps is None else len(timesteps)
        return self.stored_num_steps() or scheduled

    def _attach(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._watched = [
            WatchedMethod(scheduler, name, after, partial(self._action_of_copy, after))
            for name, after in (("set_timesteps", self._begin_generation), ("step", self._end_step))
        ]

    def _action_of_copy(self, after: Callable[[], None]) -> Callable[[], None] | None:
        """Return what a copy of the scheduler, made now, calls after its method."""
        # A copy that is made in the middle of a generation does not make the steps of that one.
        is_running = self.num_steps > 0 and self.is_under_way
        return None if is_running else partial(self._act_for_copy, weakref.WeakMethod(after))

    @staticmethod
    def _act_for_copy(after: weakref.WeakMethod[Any]) -> None:
        """Count a step that a copy made: diffusion forcing uses one copy for each frame."""
        action = after()
        # A copy may outlive the pipeline. A copy in another thread serves another pipeline.
        if action is not None and threading.get_ident() == action.__self__.thread:
            action()

    def _begin_generation(self) -> None:
        # A number from an earlier run must not count for a pipeline that shares the scheduler.
        if hasattr(self.pipeline, "_num_timesteps"):
            self.pipeline._num_timesteps = None
        self._restart()
        self._has_begun = True

    def _restart(self) -> None:
        self.generation += 1
        self.thread = threading.get_ident()
        self.steps_done = self.num_steps = 0
        self._has_called = False
        self._first_index = None
        self._idle_steps = 0
        self._calls_before = 0 if self.scheduler is None else _CALLS.get(self.scheduler, 0)

    def _end_step(self) -> None:
        calls = _CALLS.get(self.scheduler, 0)
        is_idle, self._calls_before = calls == self._calls_before, calls
        # A scheduler step without a forward call (a pipeline's warm-up) is no step of the model.
        if self._has_called:
            self.steps_done += 1
            self._has_called = False
        elif is_idle and self.num_steps == 0:
            self._count_idle_step()

    def _count_idle_step(self) -> None:
        self._idle_steps += 1
        if self._idle_steps == IDLE_STEPS_FOR_WARNING:
            warn_user(
                f"adacache_kernels: the scheduler made {self._idle_steps} steps without a call of "
                f"the patched transformer of this {type(self.pipeline).__name__}, so nothing is "
                "cached. Was the transformer replaced, or its forward? Unpatch it and patch it "
                "again"
            )
