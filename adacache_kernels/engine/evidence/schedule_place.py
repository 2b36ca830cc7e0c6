"""Find the step of a call by the memory of its timestep: a view of the schedule's tensor.

Pipelines loop over `scheduler.timesteps` and pass one element, or a repetition of it. This element
lies in the memory of the schedule, so its offset is the number of the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .tensor_identity import storage_of, version_of


@dataclass(frozen=True)
class SchedulePlace:
    """The place of a timestep in the tensor of a schedule.

    Args:
        storage: the memory of the schedule.
        version: the count of writes into it.
        index: the element, counted from 0.
        length: the number of elements.
    """

    storage: StorageWeakRef
    version: int
    index: int
    length: int


def schedule_place(timestep: object) -> SchedulePlace | None:
    """Return the place of a timestep in its schedule; None if it is not an element of one.

    A tensor `[B]` counts if all its elements are the same one in memory, as `expand` makes it.
    """
    if not isinstance(timestep, Tensor) or timestep.numel() == 0:
        return None
    repeats = zip(timestep.shape, timestep.stride(), strict=True)
    if any(size > 1 and stride != 0 for size, stride in repeats):
        return None
    length = timestep.untyped_storage().nbytes() // timestep.element_size()
    if length < 2:
        return None
    return SchedulePlace(
        storage_of(timestep), version_of(timestep), int(timestep.storage_offset()), length
    )


def is_schedule(timestep: Tensor) -> bool:
    """Return False if the memory of a timestep on the CPU does not hold a monotone sequence.

    Memory on a device is not read; it counts as a schedule.
    """
    if timestep.device.type != "cpu":
        return True
    storage = timestep.untyped_storage()
    length = storage.nbytes() // timestep.element_size()
    whole = timestep.as_strided((length,), (1,), 0)
    strides = whole[1:].double() - whole[:-1].double()
    is_monotone = bool((strides >= 0).all()) or bool((strides <= 0).all())
    return is_monotone and bool(strides.any())
