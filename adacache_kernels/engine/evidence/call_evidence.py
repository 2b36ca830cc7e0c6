"""The evidence of one forward call."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..cache_context import NamedCall
from .schedule_place import SchedulePlace, schedule_place

NAMES = ("timestep", "timesteps", "t", "vision_timesteps", "argument 1")
"""Parameters that carry the timestep."""


@dataclass(frozen=True)
class CallEvidence:
    """Everything that shows the generation, step and branch of a forward call.

    Args:
        named: what the innermost `cache_context` says; None outside of any.
        arguments: the arguments of the call, by parameter name.
        timestep: the argument that carries the timestep, if there is one.
        place: the place of the timestep in the tensor of a schedule.
        time: the value of the timestep, the mean if there are several; None if the host would wait.
        thread: the thread of the call.
    """

    named: NamedCall | None
    arguments: Mapping[str, Any]
    timestep: object
    place: SchedulePlace | None
    time: float | None
    thread: int

    @classmethod
    def of(cls, named: NamedCall | None, arguments: Mapping[str, Any]) -> CallEvidence:
        """Return the evidence of a call that begins now in this thread."""
        timestep = next((arguments[n] for n in NAMES if arguments.get(n) is not None), None)
        return cls(
            named,
            arguments,
            timestep,
            schedule_place(timestep),
            readable_time(timestep),
            threading.get_ident(),
        )

    @property
    def has_one_time(self) -> bool:
        """Return True if the call has one timestep, and not one for each frame or token."""
        return not isinstance(self.timestep, Tensor) or (
            self.place is not None or self.timestep.numel() == 1
        )


def readable_time(timestep: object) -> float | None:
    """Return the value of a timestep, the mean if there are several; None if the host would wait.

    The host reads numbers, and tensors on the CPU.
    """
    if isinstance(timestep, list | tuple) and timestep:
        timestep = timestep[0]
    if isinstance(timestep, Tensor):
        is_readable = timestep.device.type == "cpu" and timestep.numel() > 0
        return float(timestep.double().mean()) if is_readable else None
    is_number = isinstance(timestep, int | float) and not isinstance(timestep, bool)
    return float(timestep) if is_number else None  # type: ignore[arg-type]
