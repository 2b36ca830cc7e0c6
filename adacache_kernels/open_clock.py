"""The clock of a bare model whose number of steps is not known.

    restart     when the timestep turns back: against the direction of this generation
    near_end    when no more than two strides are left to the end of the timesteps

Timesteps are read only where that waits for nothing: numbers, and tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .clock import UNKNOWN_STEPS, Call, CallClock

NAMES = ("timestep", "timesteps", "t", "vision_timesteps")
STRIDES_LEFT = 2.05
"""The last two steps, for timesteps that end at one stride ("trailing") or at none ("leading"); the
rest is for rounding."""


class OpenClock(CallClock):
    """Counts calls as `CallClock` does, without an end."""

    def __init__(self, calls_per_step: int = 1) -> None:
        super().__init__(UNKNOWN_STEPS, calls_per_step)

    def restart(self) -> None:
        super().restart()
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
            self._times = [] if time is None else [*self._times[-2:], time]
        branch = str(len(self._seen)) if context is None else context
        first_in_step = not self._seen
        self._seen.append(branch)
        is_first = first_in_step and self._step == 1
        return Call(self._step, branch, is_first, first_in_step, near_end=self._near_end())

    def _turns_back(self, time: float | None) -> bool:
        if time is None or len(self._times) < 2:
            return False
        *_, earlier, before = self._times
        return (time - before) * (before - earlier) < 0

    def _near_end(self) -> bool:
        if len(self._times) < 2:
            return False
        before, time = self._times[-2:]
        stride = time - before
        # Rising ones end at 1 or at 1000, as they are parts or training steps; falling ones at 0.
        end = 0.0 if stride < 0 else 1.0 if time <= 1 else 1000.0
        return stride != 0 and abs((end - time) / stride) <= STRIDES_LEFT


def readable_time(arguments: Mapping[str, Any]) -> float | None:
    """The timestep of a call, the mean of several; None where reading it would wait."""
    value = next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)
    if isinstance(value, Tensor):
        return float(value.float().mean()) if value.device.type == "cpu" else None
    return float(value) if isinstance(value, int | float) else None
