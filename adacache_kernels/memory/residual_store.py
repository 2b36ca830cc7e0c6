"""The memory of one patched model's cache: planned from shapes, in one arena, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..options import OverBudget
from .arena import CacheArena, Lease
from .arena_provider import ArenaProvider
from .byte_sizes import format_bytes
from .copy_stream import CopyStream, transfer_for
from .device_constants import DeviceConstants
from .device_slots import DeviceSlots, Slots
from .errors import ArenaOutOfMemoryError, CacheBudgetError
from .host_slots import HostSlots
from .plan import Key, SlotDemand, SlotSpec, Storage, StreamShapes, describe, total_bytes
from .report import MemoryReport


@dataclass
class _Plan:
    """The slots of all branches, and where they are."""

    demand: SlotDemand
    device: torch.device
    storage: Storage
    branches: dict[int, StreamShapes]
    specs: dict[Key, SlotSpec]
    tensors: dict[Key, Tensor]
    refused: tuple[str, ...]
    has_waste: bool = False

    def holds(
        self, branch: int, demand: SlotDemand, entering: StreamShapes, device: torch.device
    ) -> bool:
        planned = self.branches.get(branch) == entering
        return planned and self.demand == demand and self.device == device


class ResidualStore:
    """Reserves and hands out the slots of a patched model.

    Args:
        source: where the arena is from.
        storage: how residuals are to be kept.
        over_budget: what to do where that does not fit, in this order.
    """

    def __init__(
        self,
        source: ArenaProvider,
        storage: Storage,
        over_budget: Sequence[OverBudget],
    ) -> None:
        self._wanted = storage
        self._over_budget = tuple(over_budget)
        self._source = source
        self._arena: CacheArena | None = None
        self._lease: Lease | None = None
        self._transfer: CopyStream | None = None
        self._plan: _Plan | None = None
        self._slots: Slots | None = None
        self._fresh = True
        self._is_handed_over = False
        self.constants = DeviceConstants()

    def begin_generation(self) -> None:
        """What is stored no longer matters: the plan may be made anew. The memory stays."""
        self._fresh = True

    def ensure(
        self,
        branch: int,
        expected: int,
        demand: SlotDemand,
        entering: StreamShapes,
        device: torch.device,
    ) -> bool:
        """Slots for a branch with streams of these shapes.

        At the beginning of a generation, slots for all branches that are `expected`, unless those
        of the last generation fit. Later, slots beside those that there are.

        Returns:
            Whether what was stored in this generation is still there.

        Raises:
            CacheBudgetError: they do not fit.
        """
        if self._is_handed_over:
            return True
        plan, fresh = self._plan, self._fresh
        self._fresh = False
        holds = plan is not None and plan.holds(branch, demand, entering, device)
        if plan is None or not (holds or (plan.demand, plan.device) == (demand, device)):
            branches = dict.fromkeys([*range(expected), branch], entering)
            self._make_plan(demand, branches, device)
            return fresh
        outdated = plan.has_waste or expected != len(plan.branches)
        if holds and not (fresh and outdated):
            return True
        if not fresh and self._grow(plan, branch, entering):
            return True
        known = plan.branches if holds or not fresh else {}
        branches = {index: known.get(index, entering) for index in range(expected)}
        if not fresh:
            branches |= known
        self._make_plan(demand, branches | {branch: entering}, device)
        return fresh

    @property
    def slots(self) -> Slots:
        """The residuals."""
        assert self._slots is not None
        return self._slots

    def tensor(self, key: Key) -> Tensor:
        """A slot that is no residual."""
        assert self._plan is not None
        return self._plan.tensors[key]

    @property
    def device(self) -> torch.device:
        """Of the plan."""
        assert self._plan is not None
        return self._plan.device

    def acquire(self) -> None:
        """The current stream is going to use the slots."""
        if self._lease is not None and self._on_streams:
            self._lease.acquire()

    def mark(self) -> None:
        """The current stream has been given work that uses the slots."""
        if self._lease is not None and self._on_streams:
            self._lease.mark()

    @property
    def _on_streams(self) -> bool:
        # On a CPU there is none to order: to ask the arena took 0.02 ms, thrice a step.
        on_device = self._arena is not None and self._arena.device.type != "cpu"
        return on_device and not self._is_handed_over

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Inside, slots are used by a graph, and whoever launches it acquires and marks them."""
        before, self._is_handed_over = self._is_handed_over, True
        try:
            yield
        finally:
            self._is_handed_over = before

    def release(self) -> None:
        """Give all memory back."""
        self._drop_plan()
        self._transfer, self._fresh = None, True
        self.constants.clear()
        if self._lease is not None:
            self._lease.release()
        if self._arena is not None:
            self._source.give_back(self._arena)
        self._lease = self._arena = None

    def report(self) -> MemoryReport:
        """What the cache takes now."""
        plan = self._plan
        if plan is None or self._arena is None:
            return MemoryReport(storage=str(self._wanted))
        made = [plan.tensors[key].nbytes for key, spec in plan.specs.items() if not spec.on_host]
        return MemoryReport(
            planned=total_bytes(plan.specs.values()),
            in_use=sum(made),
            slots=len(plan.specs),
            on_host=total_bytes(plan.specs.values(), on_host=True),
            storage=str(plan.storage),
            refused=plan.refused,
            arena=self._arena.stats(),
        )

    def _grow(self, plan: _Plan, branch: int, entering: StreamShapes) -> bool:
        """Slots beside those that there are; False if they do not fit, but another way may."""
        lease = self._lease_on(plan.device)
        wanted = plan.demand.slots(branch, entering, plan.storage)
        # Some slots serve all branches.
        specs = [spec for spec in wanted if branch in plan.branches or spec.key not in plan.specs]
        try:
            tensors = _make(lease.tensors, specs, plan.device)
        except ArenaOutOfMemoryError:
            return False
        plan.has_waste |= branch in plan.branches
        plan.branches[branch] = entering
        plan.specs |= {spec.key: spec for spec in specs}
        plan.tensors |= tensors
        self._set_slots(plan)
        return True

    def _make_plan(
        self, demand: SlotDemand, branches: dict[int, StreamShapes], device: torch.device
    ) -> None:
        """All slots anew, in the first way that fits."""
        lease = self._lease_on(device)
        self._drop_plan()
        refused: list[str] = []
        for storage in self._ways(device):
            specs: dict[Key, SlotSpec] = {}
            for index, entering in branches.items():
                specs |= {spec.key: spec for spec in demand.slots(index, entering, storage)}
            try:
                tensors = _make(lease.replan, specs.values(), device)
            except ArenaOutOfMemoryError as error:
                refused.append(_refusal(storage, list(specs.values()), error))
                continue
            self._plan = _Plan(
                demand, device, storage, dict(branches), specs, tensors, tuple(refused)
            )
            return self._set_slots(self._plan)
        if "host" in self._over_budget and not has_host_memory(device):
            refused.append("host memory: the model runs in it already")
        raise CacheBudgetError(self._message(refused))

    def _drop_plan(self) -> None:
        if self._plan is not None:
            # Memory cannot go back as long as a tensor holds it, wherever the plan is still known.
            self._plan.tensors.clear()
        self._plan = self._slots = None

    def _set_slots(self, plan: _Plan) -> None:
        if not plan.storage.on_host:
            self._slots = DeviceSlots(plan.tensors, self.constants)
            return
        self._transfer = self._transfer or transfer_for(plan.device)
        self._slots = HostSlots.of(plan.specs, plan.tensors, self._transfer, self.constants)

    def _lease_on(self, device: torch.device) -> Lease:
        if self._arena is not None and self._arena.device != device:
            self.release()
        if self._arena is None:
            self._arena = self._source.take(device)
        if self._lease is None:
            self._lease = self._arena.lease()
        return self._lease

    def _ways(self, device: torch.device) -> Iterator[Storage]:
        yield self._wanted
        for way in self._over_budget:
            if way == "int8" or way == "fp8":
                yield replace(self._wanted, dtype=way)
            elif way == "host" and has_host_memory(device):
                yield replace(self._wanted, on_host=True)

    def _message(self, refused: Sequence[str]) -> str:
        tried = "\n".join(refused)
        return (
            f"the cache does not fit:\n{tried}\n"
            f"Raise max_cache_bytes (it is {self._source.max_bytes}), or say what to do instead "
            "with over_budget=, any of 'int8', 'fp8', 'host' in the order to try (it is "
            f"{self._over_budget}); forecast and correct take slots, too"
        )


def has_host_memory(device: torch.device) -> bool:
    """Whether host memory is another one than the device's."""
    return device.type != "cpu"


def _make(
    allocate: Callable[[Sequence[tuple[tuple[int, ...], torch.dtype]]], list[Tensor]],
    specs: Iterable[SlotSpec],
    device: torch.device,
) -> dict[Key, Tensor]:
    """The tensors of the slots."""
    on_device = [spec for spec in specs if not spec.on_host]
    made = allocate([(spec.shape, spec.dtype) for spec in on_device])
    tensors = {spec.key: tensor for spec, tensor in zip(on_device, made, strict=True)}
    with torch.inference_mode(False):
        for spec in specs:
            if spec.on_host:
                pinned = device.type == "cuda"
                tensors[spec.key] = torch.empty(
                    spec.shape, dtype=spec.dtype, device="cpu", pin_memory=pinned
                )
    return tensors


def _refusal(storage: Storage, specs: Sequence[SlotSpec], error: Exception) -> str:
    return f"{storage}: {format_bytes(total_bytes(specs))}, {error}\n{describe(specs)}"
