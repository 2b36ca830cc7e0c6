"""Count the calls of a bare model whose number of steps is unknown, with the help of timesteps.

A generation begins when the timestep changes its direction, or equals that of the first step of the
generation. A step may be one of the last two if the rest is no more than the next two strides,
which grow as the last two did.

Steps are not protected if timesteps end elsewhere than at 0, 1 or 1000, as those of Cosmos 1 do
(logarithms of sigma).

The clock reads a timestep only if the host need not wait: numbers, and tensors on the CPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..reports.user_warnings import SAME_TIMESTEP, UserWarnings
from .call_clock import CallClock
from .clock import UNKNOWN_STEPS, StepClock

NAMES = ("timestep", "timesteps", "t", "vision_timesteps")
"""Parameters that carry the timestep."""
MARGIN = 1.1
"""Factor for the rest of a schedule: strides of shifted schedules grow a little faster than
geometrically."""


class TimestepClock(CallClock):
    """The clock of a bare model whose number of steps is unknown.

    Args:
        calls_per_step: calls of a step without named contexts.
    """

    def __init__(self, calls_per_step: int = 1) -> None:
        super().__init__(UNKNOWN_STEPS, calls_per_step)
        self._first: float | None = None
        self._times: list[float] = []
        self.reads_time: bool | None = None
        """True if timesteps can be read without waiting; None before the first call."""

    def restart(self) -> None:
        """Begin a generation: the next call is its first one."""
        super().restart()
        self._first = None
        self._times = []
        self.reads_time = None

    def _begin_step(self, arguments: Mapping[str, Any]) -> None:
        time = readable_time(arguments)
        if self._turns_back(time):
            self.restart()
        self._step += 1
        self._branches = []
        self.reads_time = time is not None
        self._store(time)

    def _store(self, time: float | None) -> None:
        """Store the timestep of a step; keep the last three that differ."""
        if time is None:
            self._times = []
        elif self._first is None:
            self._first, self._times = time, [time]
        # A second-order solver repeats the timestep of the step before.
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

    def _is_near_end(self) -> bool:
        if len(self._times) < 2:
            return False
        *others, before, time = self._times
        stride = time - before
        growth = max(1.0, stride / (before - others[-1])) if others else 1.0
        # Falling timesteps end at 0. Rising ones end at 1 (parts) or at 1000 (training steps).
        end = 0.0 if stride < 0 else 1.0 if time <= 1 else 1000.0
        return abs((end - time) / stride) <= MARGIN * (growth + growth**2)


def readable_time(arguments: Mapping[str, Any]) -> float | None:
    """Return the timestep of a call, the mean if there are several; None if the host would wait."""
    value = next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)
    if isinstance(value, Tensor):
        return float(value.float().mean()) if value.device.type == "cpu" else None
    return float(value) if isinstance(value, int | float) else None


def open_ended(clock: StepClock) -> str | None:
    """Return the warning for a clock without a number of steps; None for all others."""
    if not isinstance(clock, TimestepClock):
        return None
    start = (
        "num_inference_steps is not known. Presets are used as for 50 steps, and the clock cannot "
        "count to the last two steps, which are always computed. "
    )
    if clock.reads_time:
        return f"{start}It recognises them, and a new generation, by the timesteps on the CPU"
    return (
        f"{start}To read timesteps on the device, the host would wait for it, so these steps are "
        "not protected: call ak.reset(model) before every new generation, or give "
        "num_inference_steps"
    )


class RepeatedTimestepCheck:
    """A check for steps that are called with the timestep tensor of the step before.

    A pipeline that calls the model twice in a step, for guidance, passes the same tensor to both
    calls. For the next step it makes a new tensor, or writes into the old one.

    Args:
        user_warnings: receives the warning.
    """

    def __init__(self, user_warnings: UserWarnings) -> None:
        self._user_warnings = user_warnings
        self._last: weakref.ref[Tensor] | None = None
        self._version = -1

    def note(self, arguments: Mapping[str, Any]) -> None:
        """Store the timestep of a step that begins; warn if the step before had the same tensor.

        Args:
            arguments: the arguments of the step's first call, by parameter name.
        """
        timestep = next((arguments[name] for name in NAMES if name in arguments), None)
        # Inference tensors have no version counter, so a write would go unnoticed.
        if not isinstance(timestep, Tensor) or timestep.is_inference():
            self._last = None
            return
        is_same = self._last is not None and self._last() is timestep
        if is_same and self._version == timestep._version:
            self._user_warnings.warn("same timestep", SAME_TIMESTEP)
        self._last, self._version = weakref.ref(timestep), timestep._version
