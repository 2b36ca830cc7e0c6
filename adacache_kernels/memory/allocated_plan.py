"""An allocated plan: the slots of all guidance branches, and the tensors in which they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arena import CacheArena, Lease, Spec
from .byte_sizes import format_bytes
from .errors import ArenaOutOfMemoryError, CacheBudgetError
from .plan import Key, SlotDemand, SlotSpec, Storage, StreamShapes, describe, total_bytes
from .report import MemoryReport
from .storage_choice import StorageChoice


@dataclass
class AllocatedPlan:
    """The slots of all guidance branches, allocated on one device.

    Args:
        demand: the residuals that the engine stores.
        device: device of the model.
        storage: storage of the residuals.
        branches: shapes of the streams, by branch.
        specs: the slots by key.
        tensors: the tensors by key.
        refused: for each storage that was tried before and did not fit, the reason.
        has_unused_slots: True if a branch changed its shapes, so that its former slots are unused.
    """

    demand: SlotDemand
    device: torch.device
    storage: Storage
    branches: dict[int, StreamShapes]
    specs: dict[Key, SlotSpec]
    tensors: dict[Key, Tensor]
    refused: tuple[str, ...]
    has_unused_slots: bool = False

    def is_for(self, demand: SlotDemand, device: torch.device) -> bool:
        """Return True if the plan is for this demand on this device."""
        return (self.demand, self.device) == (demand, device)

    def has_branch(self, branch: int, shapes: StreamShapes) -> bool:
        """Return True if the plan has slots for streams of these shapes in this branch."""
        return self.branches.get(branch) == shapes

    def grow(self, lease: Lease, branch: int, shapes: StreamShapes) -> bool:
        """Allocate the slots of one more branch; return False if they do not fit."""
        wanted = self.demand.slots(branch, shapes, self.storage)
        # All branches share some slots, such as staging buffers.
        specs = [spec for spec in wanted if branch in self.branches or spec.key not in self.specs]
        try:
            tensors = _allocate(lease.tensors, specs, self.device)
        except ArenaOutOfMemoryError:
            return False
        self.has_unused_slots |= branch in self.branches
        self.branches[branch] = shapes
        self.specs |= {spec.key: spec for spec in specs}
        self.tensors |= tensors
        return True

    def report(self, arena: CacheArena) -> MemoryReport:
        """Return the report on the memory of the plan, which lies in `arena`."""
        specs = self.specs.items()
        return MemoryReport(
            planned=total_bytes(self.specs.values()),
            in_use=sum(self.tensors[key].nbytes for key, spec in specs if not spec.on_host),
            slots=len(self.specs),
            on_host=total_bytes(self.specs.values(), on_host=True),
            storage=str(self.storage),
            refused=self.refused,
            arena=arena.stats(),
        )


def allocate_plan(
    lease: Lease,
    choice: StorageChoice,
    demand: SlotDemand,
    branches: dict[int, StreamShapes],
    device: torch.device,
) -> AllocatedPlan:
    """Allocate the slots of all branches in the first storage that fits.

    Args:
        lease: the part of the arena that the model uses. Its former tensors are given up.
        choice: the storages to try.
        demand: the residuals that the engine stores.
        branches: shapes of the streams, by branch.
        device: device of the model.

    Raises:
        CacheBudgetError: no storage fits.
        ArenaError: the arena is closed, or a CUDA graph is being captured.
    """
    refused: list[str] = []
    for storage in choice.storages(device):
        specs: dict[Key, SlotSpec] = {}
        for branch, shapes in branches.items():
            specs |= {spec.key: spec for spec in demand.slots(branch, shapes, storage)}
        try:
            tensors = _allocate(lease.replan, specs.values(), device)
        except ArenaOutOfMemoryError as error:
            size = format_bytes(total_bytes(specs.values()))
            refused.append(f"{storage}: {size}, {error}\n{describe(list(specs.values()))}")
            continue
        return AllocatedPlan(demand, device, storage, branches, specs, tensors, tuple(refused))
    raise CacheBudgetError(choice.nothing_fits(refused, device))


def _allocate(
    make_tensors: Callable[[Sequence[Spec]], list[Tensor]],
    specs: Iterable[SlotSpec],
    device: torch.device,
) -> dict[Key, Tensor]:
    """Return a tensor for each slot: from the arena, or in host memory."""
    specs = list(specs)
    on_device = [spec for spec in specs if not spec.on_host]
    made = make_tensors([(spec.shape, spec.dtype) for spec in on_device])
    tensors = {spec.key: tensor for spec, tensor in zip(on_device, made, strict=True)}
    pinned = device.type == "cuda"
    with torch.inference_mode(False):
        for spec in specs:
            if spec.on_host:
                tensors[spec.key] = torch.empty(
                    spec.shape, dtype=spec.dtype, device="cpu", pin_memory=pinned
                )
    return tensors
