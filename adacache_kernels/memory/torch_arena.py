"""An arena of ordinary tensors, for devices whose virtual memory the package cannot manage.

It has the methods and statistics of the compiled arena, `_C.Arena` and `_C.Lease`. Their argument
`stream` is ignored here: torch's current stream is used.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .byte_sizes import format_bytes
from .errors import ArenaError, ArenaOutOfMemoryError, CaptureError, OverBudgetError

ALIGNMENT = 256


@dataclass
class Chunk:
    """One allocation, uint8 [bytes], filled from its start."""

    memory: Tensor
    filled: int = 0

    @property
    def bytes(self) -> int:
        """Return the bytes of the allocation."""
        return self.memory.numel()

    def take(self, size: int) -> Tensor | None:
        """Return the next `size` bytes, uint8 [size], or None if fewer are left."""
        if self.filled + _aligned(size) > self.bytes:
            return None
        slot = self.memory[self.filled : self.filled + size]
        self.filled += _aligned(size)
        return slot


@dataclass
class ArenaCounters:
    """Counters of an arena: most bytes, and numbers of events, so far."""

    peak_mapped: int = 0
    peak_in_use: int = 0
    maps: int = 0
    unmaps: int = 0
    failures: int = 0


@dataclass
class MappedChunk:
    """A weak reference to a chunk, which lives as long as anything uses its storage."""

    storage: StorageWeakRef
    bytes: int


class TorchArena:
    """An arena that counts all living chunks against its budget.

    Args:
        device: device of the memory.
        budget: most bytes that may be allocated.
        chunk_bytes: least bytes of a further chunk of a lease.
    """

    def __init__(self, device: torch.device, budget: int, chunk_bytes: int) -> None:
        self.device = device
        self.budget = budget
        self.chunk_bytes = chunk_bytes
        self.lock = threading.RLock()
        self.closed = False
        self._process = os.getpid()
        self.counters = ArenaCounters()
        self.leases: weakref.WeakSet[TorchLease] = weakref.WeakSet()
        self._mapped: list[MappedChunk] = []

    def lease(self) -> TorchLease:
        """Return a new, empty lease.

        Raises:
            ArenaError: the arena is closed.
        """
        with self.lock:
            self.check_open()
            made = TorchLease(self)
            self.leases.add(made)
            return made

    def stats(self) -> dict[str, Any]:
        """Return the fields of `ArenaStats`."""
        with self.lock:
            mapped = self.mapped()
            return {
                "budget": self.budget,
                "reserved": 0,
                "mapped": mapped,
                "planned": sum(lease.planned for lease in self.leases),
                "in_use": self._in_use(),
                "chunks": len(self._mapped),
                "slots": sum(lease.slots for lease in self.leases),
                "leases": len(self.leases),
                "is_virtual": False,
                "why_not_virtual": f"each chunk is a tensor: the package cannot manage the virtual "
                f"memory of a device of type {self.device.type}",
                **vars(self.counters),
            }

    def close(self, stream: int) -> None:
        """Refuse all further requests."""
        with self.lock:
            self.closed = True

    def check_open(self) -> None:
        """Raise `ArenaError` if the arena is closed, or belongs to another process."""
        if os.getpid() != self._process:
            raise ArenaError(
                "this arena belongs to the process that made it, and this is a fork of that one: "
                "make another arena here"
            )
        if self.closed:
            raise ArenaError("this arena is closed: make a new one, or close it later")

    def mapped(self) -> int:
        """Return the bytes of all chunks that are alive."""
        alive = [chunk for chunk in self._mapped if not chunk.storage.expired()]
        self.counters.unmaps += len(self._mapped) - len(alive)
        self._mapped = alive
        return sum(chunk.bytes for chunk in alive)

    def map(self, size: int, lease: TorchLease) -> Chunk:
        """Allocate a chunk of at least `size` bytes for a lease.

        Raises:
            OverBudgetError: the budget does not allow it.
            CaptureError: a CUDA graph is being captured.
            ArenaOutOfMemoryError: the device has too little memory.
        """
        mapped = self.mapped()
        left = self.budget - mapped
        if size > left:
            raise OverBudgetError(self._refused(size, lease, "the budget does not allow it"))
        if lease.chunks:
            size = max(size, min(self.chunk_bytes, left) // ALIGNMENT * ALIGNMENT)
        if _is_capturing(self.device):
            raise CaptureError(
                f"{size} bytes would have to be allocated while a graph is captured: reserve them "
                "before, by running one step"
            )
        try:
            with torch.inference_mode(False):
                memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            raise ArenaOutOfMemoryError(self._refused(size, lease, str(error))) from error
        self._mapped.append(MappedChunk(StorageWeakRef(memory.untyped_storage()), size))
        self.counters.maps += 1
        self.counters.peak_mapped = max(self.counters.peak_mapped, mapped + size)
        return Chunk(memory)

    def count_use(self) -> None:
        """Record the bytes in use for the peak."""
        self.counters.peak_in_use = max(self.counters.peak_in_use, self._in_use())

    def _in_use(self) -> int:
        return sum(lease.in_use for lease in self.leases)

    def _refused(self, size: int, lease: TorchLease, why: str) -> str:
        self.counters.failures += 1
        mapped = self.mapped()
        others = [other.mapped for other in self.leases if other is not lease and other.mapped]
        views = mapped - lease.mapped - sum(others)
        return (
            f"no memory for {format_bytes(size)} ({size} bytes) more on {self.device}: {why}. Of "
            f"{self.budget} bytes of budget {mapped} are mapped: {lease.mapped} by this lease, "
            f"{sum(others)} by {len(others)} others, {views} by tensors of released leases. "
            "Raise max_bytes, or release leases and tensors"
        )


@dataclass(eq=False)
class TorchLease:
    """The chunks of one user of an arena.

    Args:
        arena: arena of the chunks.
        chunks: allocations of the lease.
        slots: number of tensors.
        planned: sum of their sizes in bytes.
        events: for each stream, the event after its last work on the tensors.
    """

    arena: TorchArena
    chunks: list[Chunk] = field(default_factory=list)
    slots: int = 0
    planned: int = 0
    events: dict[Any, Any] = field(default_factory=dict)

    @property
    def mapped(self) -> int:
        """Return the bytes of the chunks."""
        return sum(chunk.bytes for chunk in self.chunks)

    @property
    def in_use(self) -> int:
        """Return the bytes in slots, each rounded up to 256 bytes."""
        return sum(chunk.filled for chunk in self.chunks)

    def grow(self, sizes: Sequence[int], stream: int) -> list[Tensor]:
        """Allocate more slots: uint8 [size] each. Raises as `Lease.tensors`."""
        with self.arena.lock:
            self.arena.check_open()
            filled = [chunk.filled for chunk in self.chunks]
            slots = [self._first_fit(size) for size in sizes]
            missing = [size for size, slot in zip(sizes, slots, strict=True) if slot is None]
            try:
                if missing:
                    self.chunks.append(self.arena.map(sum(map(_aligned, missing)), self))
            except ArenaError:
                for chunk, before in zip(self.chunks, filled, strict=True):
                    chunk.filled = before
                raise
            self.slots += len(sizes)
            self.planned += sum(sizes)
            made = [
                self.chunks[-1].take(size) if slot is None else slot
                for size, slot in zip(sizes, slots, strict=True)
            ]
            self.arena.count_use()
            return [slot for slot in made if slot is not None]

    def replan(self, sizes: Sequence[int], stream: int) -> list[Tensor]:
        """Replace all slots by new ones: uint8 [size] each. Raises as `Lease.replan`."""
        with self.arena.lock:
            self.arena.check_open()
            if len(self.chunks) == 1 and sum(map(_aligned, sizes)) == self.mapped:
                self.chunks[0].filled = self.slots = self.planned = 0
            else:
                self.release(stream)
            return self.grow(sizes, stream)

    def release(self, stream: int) -> None:
        """Give all chunks up. Torch frees each after its last tensor."""
        with self.arena.lock:
            self.chunks.clear()
            self.events.clear()
            self.slots = self.planned = 0

    def acquire(self, stream: int) -> None:
        """Make the current stream wait for the work that other streams have marked.

        Raises:
            CaptureError: a stream under capture would have to wait for work outside the capture.
        """
        now = _current_stream(self.arena.device)
        for marked, event in self.events.items():
            if marked == now:
                continue
            if _is_capturing(self.arena.device):
                raise CaptureError(
                    "a stream under capture would have to wait for work outside of the capture: "
                    "call acquire() before the capture"
                )
            now.wait_event(event)

    def mark(self, stream: int) -> None:
        """Record the work that was launched on the current stream."""
        now = _current_stream(self.arena.device)
        if now is None or _is_capturing(self.arena.device):
            return
        self.events[now] = now.record_event()
        for chunk in self.chunks:
            chunk.memory.record_stream(now)  # Else torch may reuse it too early.

    def _first_fit(self, size: int) -> Tensor | None:
        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device=self.arena.device)
        for chunk in self.chunks:
            slot = chunk.take(size)
            if slot is not None:
                return slot
        return None


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _current_stream(device: torch.device) -> Any:
    """Return the current stream, or None if the device has a single one."""
    if device.type in ("cpu", "mps"):
        return None
    return torch.get_device_module(device).current_stream(device)


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
