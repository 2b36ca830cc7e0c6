"""Which step and which branch a forward call is, without reading a tensor.

Reading a timestep would wait for the GPU, so steps are told apart by what happens around the model:
calls are counted on a bare model, the scheduler's `set_timesteps` and `step` are watched on a
pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

UNKNOWN_STEPS = -1
"""The number of steps of a bare model that nobody has given."""


@dataclass(frozen=True)
class Call:
    """One forward call.

    Args:
        step: counted from 1.
        branch: name of the branch of guidance, or its place in the step ("0", "1").
        first_in_generation: no call of this generation came before.
        first_in_step: no call of this step came before.
        near_end: it may be one of the last two steps, as far as that can be told without their
            number.
    """

    step: int
    branch: str
    first_in_generation: bool
    first_in_step: bool
    near_end: bool = False


class StepClock(Protocol):
    """Tells steps and branches apart."""

    @property
    def num_steps(self) -> int:
        """Steps of the present generation; 0 before the first; `UNKNOWN_STEPS`."""

    @property
    def scheduler(self) -> Any:
        """The scheduler that is watched; None on a bare model."""

    @property
    def has_guidance(self) -> bool | None:
        """Whether there is classifier-free guidance; None if that is unknown."""

    def calls(self, with_guidance: int) -> int | None:
        """Calls that make a step, `with_guidance` if there is guidance; None if that is unknown."""

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """The call that begins now, with these arguments; None where its step cannot be told."""

    def restart(self) -> None:
        """The next call is the first one of a generation."""

    def detach(self) -> None:
        """Give back whatever is watched."""


class CallClock:
    """Counts the calls of a bare model: a step is `calls_per_step` calls, or ends when a named
    context comes again; a generation is `num_steps` steps."""

    def __init__(self, num_steps: int, calls_per_step: int = 1) -> None:
        self._num_steps = num_steps
        self._calls_per_step = calls_per_step
        self.scheduler: Any = None
        self.restart()

    @property
    def num_steps(self) -> int:
        return self._num_steps

    @property
    def has_guidance(self) -> bool | None:
        return None

    def calls(self, with_guidance: int) -> int | None:
        # One call is also what who names the branches leaves this at.
        return self._calls_per_step if self._calls_per_step > 1 else None

    def restart(self) -> None:
        self._step = 0
        self._seen: list[str] = []

    def detach(self) -> None:
        """Nothing is watched."""

    def next_call(self, context: str | None, arguments: Mapping[str, Any] | None = None) -> Call:
        if self._step_is_over(context):
            self._step += 1
            self._seen = []
        if self._step > self._num_steps:
            self._step = 1
        branch = str(len(self._seen)) if context is None else context
        first_in_step = not self._seen
        self._seen.append(branch)
        return Call(self._step, branch, first_in_step and self._step == 1, first_in_step)

    def _step_is_over(self, context: str | None) -> bool:
        if self._step == 0:
            return True
        if context is not None:
            return context in self._seen
        return len(self._seen) >= self._calls_per_step
