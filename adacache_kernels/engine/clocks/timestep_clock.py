"""The clock of a bare model whose number of steps is not known.

    restart     when the timestep turns back, or is that of the generation's first step again
    near_end    when no more is left than the next two strides, growing as the last two did

Timesteps that end elsewhere than at 0, 1 or 1000 (Cosmos 1: logarithms of sigma) are not protected.

Timesteps are read only where that waits for nothing: numbers, and tensors on the CPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..user_warnings import SAME_TIMESTEP, UserWarnings
from .clock import UNKNOWN_STEPS, Call, CallClock, StepClock

NAMES = ("timestep", "timesteps", "t", "vision_timesteps")
MARGIN = 1.1
"""Strides of shifted schedules grow a little faster than geometrically."""


class TimestepClock(CallClock):
    """Counts calls as `CallClock` does, without an end."""

    def __init__(self, calls_per_step: int = 1) -> None:
        super().__init__(UNKNOWN_STEPS, calls_per_step)

    def restart(self) -> None:
        super().restart()
        self._first: float | None = None
        self._times: list[float] = []
        self.reads_time: bool | None = None
        """Whether timesteps can be read; None before the first call."""

    def next_call(self, context: str | None, arguments: Mapping[str, Any] | None = None) -> Call:
        if self._step_is_over(context):
            time = readable_time(arguments or {})
            if self._turns_back(time):
                self.restart()
            self._step += 1
            self._seen = []
            self.reads_time = time is not None
            self._note(time)
        branch = str(len(self._seen)) if context is None else context
        first_in_step = not self._seen
        self._seen.append(branch)
        is_first = first_in_step and self._step == 1
        return Call(self._step, branch, is_first, first_in_step, near_end=self._near_end())

    def _note(self, time: float | None) -> None:
        """A step begins at this timestep; a second-order one may have that of the step before."""
        if time is None:
            self._times = []
        elif self._first is None:
            self._first, self._times = time, [time]
        elif time != self._times[-1]:
            self._times = [*self._times[-2:], time]

    def _turns_back(self, time: float | None) -> bool:
        if time is None or self._first is None:
            return False
        if time == self._first:
            return True
        if len(self._times) < 2:
            return False
        *_, earlier, before = self._times
        return (time - before) * (before - earlier) < 0

    def _near_end(self) -> bool:
        if len(self._times) < 2:
            return False
        *others, before, time = self._times
        stride = time - before
        growth = max(1.0, stride / (before - others[-1])) if others else 1.0
        # Rising ones end at 1 or at 1000, as they are parts or training steps; falling ones at 0.
        end = 0.0 if stride < 0 else 1.0 if time <= 1 else 1000.0
        return abs((end - time) / stride) <= MARGIN * (growth + growth**2)


def readable_time(arguments: Mapping[str, Any]) -> float | None:
    """The timestep of a call, the mean of several; None where reading it would wait."""
    value = next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)
    if isinstance(value, Tensor):
        return float(value.float().mean()) if value.device.type == "cpu" else None
    return float(value) if isinstance(value, int | float) else None


def open_ended(clock: StepClock) -> str | None:
    """Where the number of steps is not known."""
    if not isinstance(clock, TimestepClock):
        return None
    start = (
        "num_inference_steps is not known, so that a preset is taken for 50 steps, and the last "
        "two steps, which are always computed, cannot be counted to; "
    )
    if clock.reads_time:
        return f"{start}they, and a new generation, are told by the timesteps, which are at hand"
    return (
        f"{start}to read timesteps on the device would wait for it, so that these steps are not "
        "protected: call ak.reset(model) before every new generation, or give num_inference_steps"
    )


class RepeatedTimestepCheck:
    """Remembers the tensor that was the last step's timestep.

    Pipelines that call the model twice a step, for guidance, hand both calls the very same tensor;
    for the next step they make another one, or write into it.
    """

    def __init__(self, notices: UserWarnings) -> None:
        self._notices = notices
        self._last: weakref.ref[Tensor] | None = None
        self._version = -1

    def note(self, arguments: Mapping[str, Any]) -> None:
        """A step begins; warns if the timestep among its arguments is that of the one before."""
        timestep = next((arguments[name] for name in NAMES if name in arguments), None)
        # Inference tensors count no versions, so that a write could not be told.
        if not isinstance(timestep, Tensor) or timestep.is_inference():
            self._last = None
            return
        is_same = self._last is not None and self._last() is timestep
        if is_same and self._version == timestep._version:
            self._notices.warn("same timestep", SAME_TIMESTEP)
        self._last, self._version = weakref.ref(timestep), timestep._version
