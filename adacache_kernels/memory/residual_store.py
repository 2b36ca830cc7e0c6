"""The stored residuals of one patched model: planned from shapes, allocated within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..options import OverBudget
from .allocated_plan import AllocatedPlan, allocate_plan
from .arena import CacheArena
from .arena_provider import ArenaProvider, LeasedArena
from .copy_stream import CopyStream, make_copy_stream
from .device_constants import DeviceConstants
from .device_slots import DeviceSlots, Slots
from .errors import CacheBudgetError
from .host_slots import HostSlots
from .plan import Key, SlotDemand, Storage, StreamShapes
from .report import MemoryReport
from .storage_choice import StorageChoice


class ResidualStore:
    """The slots of a patched model: planned, allocated and reported.

    Args:
        provider: the source of the arena.
        storage: the preferred storage of the residuals.
        over_budget: what to try, in this order, if that does not fit the budget.
    """

    def __init__(
        self, provider: ArenaProvider, storage: Storage, over_budget: Sequence[OverBudget]
    ) -> None:
        self._choice = StorageChoice(storage, tuple(over_budget), provider.max_bytes)
        self._leased = LeasedArena(provider)
        self._constants = DeviceConstants()
        self._copies: CopyStream | None = None
        self._plan: AllocatedPlan | None = None
        self._slots: Slots | None = None
        self._is_new_generation = True
        self._is_handed_over = False

    def begin_generation(self) -> None:
        """Allow a new plan: the stored residuals are no longer needed. The memory stays."""
        self._is_new_generation = True

    def ensure(
        self,
        branch: int,
        expected: int,
        demand: SlotDemand,
        shapes: StreamShapes,
        device: torch.device,
    ) -> bool:
        """Provide the slots of a guidance branch.

        The first call of a generation plans all expected branches, unless the last generation's
        plan fits. A later call adds slots to the plan. If they do not fit, it plans all again.

        Args:
            branch: number of the branch, from 0.
            expected: number of branches that the generation is expected to have.
            demand: the residuals that the engine stores.
            shapes: shapes of the branch's streams.
            device: device of the model.

        Returns:
            True if the residuals stored in this generation are still there.

        Raises:
            CacheBudgetError: the slots do not fit in any storage that the settings allow.
            ArenaError: the arena is closed, or a CUDA graph is being captured.
            ValueError: the arena of the user is on another device.
        """
        if self._is_handed_over:
            return True
        is_new, self._is_new_generation = self._is_new_generation, False
        plan = self._plan
        known: dict[int, StreamShapes] = {}
        if plan is not None and plan.is_for(demand, device):
            has_branch = plan.has_branch(branch, shapes)
            is_outdated = plan.has_unused_slots or expected != len(plan.branches)
            if has_branch and not (is_new and is_outdated):
                return True
            if not is_new and self._grow(plan, branch, shapes):
                return True
            known = plan.branches if has_branch or not is_new else {}
        branches = {index: known.get(index, shapes) for index in range(expected)}
        if not is_new:
            branches |= known
        self._make_plan(demand, branches | {branch: shapes}, device)
        return is_new

    @property
    def slots(self) -> Slots:
        """Return the slots of the residuals."""
        assert self._slots is not None
        return self._slots

    def tensor(self, key: Key) -> Tensor:
        """Return the slot of a metric block's residual, in the shape of its stream."""
        assert self._plan is not None
        return self._plan.tensors[key]

    @property
    def device(self) -> torch.device:
        """Return the device of the plan."""
        assert self._plan is not None
        return self._plan.device

    @property
    def arena(self) -> CacheArena | None:
        """Return the arena in which the slots lie, or None before there is a plan."""
        return self._leased.arena

    def acquire(self) -> None:
        """Make the current stream wait for earlier work on the slots."""
        if not self._is_handed_over:
            self._leased.acquire()

    def mark(self) -> None:
        """Record the work on the slots that was launched on the current stream."""
        if not self._is_handed_over:
            self._leased.mark()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Leave plan and streams alone inside: a CUDA graph is captured that uses the slots.

        The caller that launches the graph acquires and marks the slots.
        """
        before, self._is_handed_over = self._is_handed_over, True
        try:
            yield
        finally:
            self._is_handed_over = before

    def release(self) -> None:
        """Give all memory back."""
        self._drop_plan()
        self._copies, self._is_new_generation = None, True
        self._constants.clear()
        self._leased.release()

    def report(self) -> MemoryReport:
        """Return the report on the memory that the cache uses now."""
        if self._plan is None or self.arena is None:
            return MemoryReport(storage=str(self._choice.preferred))
        return self._plan.report(self.arena)

    def _grow(self, plan: AllocatedPlan, branch: int, shapes: StreamShapes) -> bool:
        """Add the slots of a branch to the plan; return False if they do not fit."""
        has_grown = plan.grow(self._leased.lease(plan.device), branch, shapes)
        if has_grown:
            self._slots = self._make_slots(plan)
        return has_grown

    def _make_plan(
        self, demand: SlotDemand, branches: dict[int, StreamShapes], device: torch.device
    ) -> None:
        """Replace the plan."""
        if self._leased.is_elsewhere(device):
            self.release()
        lease = self._leased.lease(device)
        self._drop_plan()
        while self._plan is None:
            try:
                self._plan = allocate_plan(lease, self._choice, demand, branches, device)
            except CacheBudgetError:
                if not self._leased.reclaim():
                    raise
        self._slots = self._make_slots(self._plan)

    def _drop_plan(self) -> None:
        if self._plan is not None:
            # Slots that others still refer to must not hold tensors, which hold their memory.
            self._plan.tensors.clear()
        self._plan = self._slots = None

    def _make_slots(self, plan: AllocatedPlan) -> Slots:
        if not plan.storage.on_host:
            return DeviceSlots(plan.tensors, self._constants)
        self._copies = self._copies or make_copy_stream(plan.device)
        return HostSlots.of(plan.specs, plan.tensors, self._copies, self._constants)
