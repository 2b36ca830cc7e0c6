"""The place of a forward call: its generation, and its step if there is evidence of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch.multiprocessing.reductions import StorageWeakRef


class Kind(Enum):
    """The evidence that separates the steps of a generation, the strongest first."""

    INDEXED = "by the index of the step"
    WATCHED = "by the steps of the scheduler"
    TIMED = "by the value of the timestep"
    COUNTED = "by the number of calls"


@dataclass(frozen=True)
class Place:
    """The place of a forward call.

    Args:
        kind: the evidence of the step.
        key: identifies the generation.
        position: the index, the count or the timestep of the step; None if calls are counted.
        num_steps: the steps of the generation from its first call on, or UNKNOWN_STEPS.
        schedule: the memory of the schedule, if the step was found in it.
        scheduler: the scheduler of the generation, if it is known.
        has_guidance: as in `EngineClock`.
        may_skip: True if the caller gives the position, so steps may be left out.
    """

    kind: Kind
    key: Hashable
    position: float | None
    num_steps: int
    schedule: StorageWeakRef | None = None
    scheduler: Any = None
    has_guidance: bool | None = None
    may_skip: bool = False
