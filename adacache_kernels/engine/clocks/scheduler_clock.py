"""Tell the steps of a pipeline by its scheduler."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...models.method_proxy import MethodProxy
from ...options import AdaCacheWarning
from .clock import Call, StepClock

# The most branches any pipeline runs in a step is four (guidance with two perturbed passes); more
# unnamed calls without a scheduler step mean that the steps cannot be seen.
MOST_CALLS_PER_STEP = 8


TELLING_IDLE_STEPS = 4


class SchedulerClock:
    """Watches a pipeline's scheduler: `set_timesteps` begins a generation, `step` ends a step."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._watched: list[WatchedMethod] = []
        self.scheduler: Any = None
        self._num_steps = 0
        self.generation = 0
        """Counts what `restart` has begun."""
        self.restart()
        self._attach(pipeline.scheduler)

    @property
    def num_steps(self) -> int:
        return self._num_steps

    @property
    def has_guidance(self) -> bool | None:
        told = getattr(self._pipeline, "do_classifier_free_guidance", None)
        return None if told is None else bool(told)

    def calls(self, with_guidance: int) -> int | None:
        if self.has_guidance is None:
            return None
        return with_guidance if self.has_guidance else 1

    def restart(self) -> None:
        self.generation += 1
        self._thread = threading.get_ident()
        self._steps_done = 0
        self._seen: list[str] = []
        self._started = False
        self._idle_steps = 0

    def detach(self) -> None:
        for method in self._watched:
            method.remove()
        self._watched = []
        self.scheduler = None

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        if self._pipeline.scheduler is not self.scheduler:
            self._follow_new_scheduler()
        if not self._started:
            self._num_steps = self._count_steps()
        if self._steps_done >= self._num_steps or len(self._seen) >= MOST_CALLS_PER_STEP:
            return None
        first_in_step = not self._seen
        first_in_generation = not self._started
        self._started = True
        branch = self._branch(context)
        self._seen.append(branch)
        return Call(self._steps_done + 1, branch, first_in_generation, first_in_step)

    def _branch(self, context: str | None) -> str:
        if context is None:
            return str(len(self._seen))
        if context not in self._seen:
            return context
        return f"{context}/{len(self._seen)}"

    def _count_steps(self) -> int:
        timesteps = getattr(self.scheduler, "timesteps", None)
        scheduled = 0 if timesteps is None else len(timesteps)
        # Pipelines note it: of video to video, the tail of the schedule; more steps than it has,
        # where frames begin one after the other.
        noted = getattr(self._pipeline, "_num_timesteps", None)
        return noted if isinstance(noted, int) and noted > 0 else scheduled

    def _follow_new_scheduler(self) -> None:
        self.detach()
        self.restart()
        self._attach(self._pipeline.scheduler)

    def _attach(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._watched = [
            WatchedMethod(scheduler, name, after, partial(self._for_a_copy, after))
            for name, after in (("set_timesteps", self._begin_generation), ("step", self._end_step))
        ]

    def _for_a_copy(self, after: Callable[[], None]) -> Callable[[], None] | None:
        """What a copy that is made now calls after its method."""
        # A copy that is made amid a generation is for something else than its steps.
        is_under_way = self._started and self._steps_done < self._num_steps
        return None if is_under_way else partial(self._by_a_copy, weakref.WeakMethod(after))

    @staticmethod
    def _by_a_copy(after: weakref.WeakMethod[Any]) -> None:
        """A pipeline may make all its steps with copies, one for each frame (diffusion forcing)."""
        call = after()
        # A copy may outlive the pipeline; one that another thread works with is for another one.
        if call is not None and threading.get_ident() == call.__self__._thread:
            call()

    def _begin_generation(self) -> None:
        # What an earlier run noted must not count for a pipeline that shares the scheduler.
        if hasattr(self._pipeline, "_num_timesteps"):
            self._pipeline._num_timesteps = None
        self.restart()

    def _end_step(self) -> None:
        # A step without a forward call (a pipeline's own warm-up) is no step of the model.
        if self._seen:
            self._steps_done += 1
            self._seen = []
        elif not self._started:
            self._note_idle_step()

    def _note_idle_step(self) -> None:
        self._idle_steps += 1
        if self._idle_steps == TELLING_IDLE_STEPS:
            warnings.warn(
                f"adacache_kernels: {self._idle_steps} steps of the scheduler without a call of "
                f"the patched transformer of this {type(self._pipeline).__name__}, so that nothing "
                "is cached: was it replaced, or its forward set anew? unpatch and patch again",
                AdaCacheWarning,
                stacklevel=4,
            )


class ExpertClock:
    """For one of several models that make one generation between them, one step after the other.

    Steps are those of the generation, whoever runs them; each model is told when it first has a
    call in it.
    """

    def __init__(self, shared: SchedulerClock) -> None:
        self._shared = shared
        self._generation = 0

    @property
    def num_steps(self) -> int:
        return self._shared.num_steps

    @property
    def scheduler(self) -> Any:
        return self._shared.scheduler

    @property
    def has_guidance(self) -> bool | None:
        return self._shared.has_guidance

    def calls(self, with_guidance: int) -> int | None:
        return self._shared.calls(with_guidance)

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        call = self._shared.next_call(context, arguments)
        if call is None:
            return None
        is_new = self._shared.generation != self._generation
        self._generation = self._shared.generation
        return replace(call, first_in_generation=is_new)

    def restart(self) -> None:
        self._shared.restart()

    def detach(self) -> None:
        self._shared.detach()


def clocks(clock: StepClock, count: int) -> list[StepClock]:
    """One for each of `count` models that share a generation."""
    if count == 1:
        return [clock]
    assert isinstance(clock, SchedulerClock)
    return [ExpertClock(clock) for _ in range(count)]


class WatchedMethod(MethodProxy):
    """Calls an object's method and then `after`; set on the instance, the class stays as it is.

    Args:
        owner: the object.
        name: of the method.
        after: called after each call.
        of_copies: asked when the object is copied: what is called after the copy's method.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        after: Callable[[], None],
        of_copies: Callable[[], Callable[[], None] | None] | None = None,
    ) -> None:
        # Pipelines read the signature to learn which arguments a scheduler takes.
        super().__init__(getattr(owner, name))
        self._owner, self._name, self._after, self._of_copies = owner, name, after, of_copies
        self._had = name in vars(owner)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._original(*args, **kwargs)
        self._after()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The copy must step itself and not the watched one.
        copied = memo.get(id(self._owner))
        after = None if self._of_copies is None else self._of_copies()
        if copied is None or after is None:
            return super().__deepcopy__(memo)
        watching = weakref.ref(self)

        def tell() -> None:
            original = watching()
            if original is not None and original.is_watching:
                after()

        return WatchedMethod(copied, self._name, tell)

    @property
    def is_watching(self) -> bool:
        """Whether it is still what the object's method is."""
        return vars(self._owner).get(self._name) is self

    def remove(self) -> None:
        """Set the method back, unless somebody has replaced it in the meantime."""
        if not self.is_watching:
            return
        if self._had:
            setattr(self._owner, self._name, self._original)
        else:
            delattr(self._owner, self._name)
