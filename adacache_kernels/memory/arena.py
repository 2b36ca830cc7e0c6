"""Memory for caches: mapped once in few large chunks, within a budget, and never moved."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from .. import _native
from .byte_sizes import format_bytes, free_memory, parse_bytes, total_memory
from .errors import ArenaError, ArenaOutOfMemoryError, OverBudgetError, package_errors
from .torch_arena import TorchArena, TorchLease

if TYPE_CHECKING:
    from .. import _C

Spec = tuple[Sequence[int], torch.dtype]
"""The shape and dtype of a tensor."""

_Allocate = Callable[[Sequence[int], int], Sequence[Any]]
"""A function from sizes in bytes and a stream to slots."""

DEFAULT_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class ArenaStats:
    """The state of an arena. Amounts of memory are in bytes.

    `torch.cuda.memory_allocated` and similar functions do not count this memory.

    Attributes:
        budget: most memory that may be mapped.
        reserved: reserved addresses, which use no memory. 0 without virtual memory. Without enough
            addresses for the budget, or under `ulimit -v`, only those of the chunks.
        mapped: memory that is taken from the device.
        peak_mapped: the most that `mapped` has been since the arena was made.
        planned: sum of the sizes of the tensors of all leases.
        in_use: mapped memory that is in slots, each rounded up to 256 bytes.
        peak_in_use: the most that `in_use` has been.
        chunks: number of mapped chunks.
        slots: number of tensors of all leases.
        leases: number of leases that are alive.
        maps: number of chunks mapped so far.
        unmaps: number of chunks unmapped so far.
        failures: number of requests refused so far.
        is_virtual: True if chunks are mapped to reserved addresses. False if each chunk is one
            allocation.
        why_not_virtual: the reason if `is_virtual` is False, else "".
    """

    budget: int
    reserved: int
    mapped: int
    peak_mapped: int
    planned: int
    in_use: int
    peak_in_use: int
    chunks: int
    slots: int
    leases: int
    maps: int
    unmaps: int
    failures: int
    is_virtual: bool
    why_not_virtual: str


class Lease:
    """The part of an arena that one user holds. `CacheArena.lease` makes it.

    A tensor keeps its memory mapped for as long as it, or a view of it, lives: after `release`,
    after `CacheArena.close`, and after both objects are gone. The contents of a tensor are
    undefined until they are written. In a forked child, all methods but `release` raise
    `ArenaError`. The child has a copy of host tensors, and must not use tensors of a GPU.
    """

    def __init__(self, native: _C.Lease | TorchLease, device: torch.device) -> None:
        self._native = native
        self._device = device

    def tensors(self, specs: Sequence[Spec]) -> list[Tensor]:
        """Allocate more tensors, contiguous, at addresses divisible by 256.

        Earlier tensors keep their addresses and contents. All tensors are made, or none.

        Args:
            specs: shape and dtype of each tensor.

        Raises:
            OverBudgetError: the budget does not allow it.
            ArenaOutOfMemoryError: the device has too little memory, also after torch's cache was
                emptied.
            CaptureError: memory would have to be mapped while a CUDA graph is captured.
            ArenaError: the arena is closed.
            TypeError: a spec is not a pair (shape, dtype).
            ValueError: a size is negative.
        """
        return self._make(self._native.grow, specs)

    def replan(self, specs: Sequence[Spec]) -> list[Tensor]:
        """Replace all tensors by new ones.

        If they need as much memory as is mapped, nothing is mapped or unmapped. The same specs then
        get the same addresses. After an error the lease is empty.

        Args:
            specs: shape and dtype of each tensor.

        Raises:
            OverBudgetError, ArenaOutOfMemoryError, CaptureError, ArenaError, TypeError, ValueError:
                as `tensors`.
        """
        return self._make(self._native.replan, specs)

    def release(self) -> None:
        """Give all memory back: unused memory now, the rest after its last tensor.

        On a GPU the rest is unmapped when the arena next maps or unmaps memory, or is closed. To
        unmap it when Python drops the tensor would make the host wait for the device.

        Raises:
            CaptureError: memory would have to be unmapped while a CUDA graph is captured.
        """
        with package_errors():
            self._native.release(_stream(self._device))

    def acquire(self) -> None:
        """Make the current stream wait for the work that other streams have marked.

        The device waits, not the host. On a CPU, or with a single stream, nothing happens.

        Raises:
            CaptureError: a stream under capture would have to wait for work outside the capture.
        """
        with package_errors():
            self._native.acquire(_stream(self._device))

    def mark(self) -> None:
        """Record that work on the tensors was launched on the current stream."""
        with package_errors():
            self._native.mark(_stream(self._device))

    def _make(self, allocate: _Allocate, specs: Sequence[Spec]) -> list[Tensor]:
        sizes = [_bytes_of(spec) for spec in specs]
        slots = self._allocate(allocate, sizes)
        return [_tensor(slot, spec) for slot, spec in zip(slots, specs, strict=True)]

    def _allocate(self, allocate: _Allocate, sizes: list[int]) -> Sequence[Any]:
        """Return the slots; try a second time after torch's cache was emptied."""
        try:
            with package_errors():
                return allocate(sizes, _stream(self._device))
        except OverBudgetError:
            raise
        except ArenaOutOfMemoryError:
            if not _torch_may_hold_memory(self._device):
                raise
        torch.cuda.empty_cache()
        with package_errors():
            return allocate(sizes, _stream(self._device))


class CacheArena:
    """A budget of memory on one device, for the caches of any number of models.

    On a CPU and with NVIDIA's driver, addresses are reserved once and memory is mapped to them as
    it is needed. On other devices each chunk is one allocation of torch; `stats` gives the reason.

    Args:
        device: device of the memory; "cuda" is the current CUDA device.
        max_bytes: most memory that may be mapped at any time: a number of bytes, a text such as
            "2GiB", "512MiB" or "1.5GB", or a float in (0, 1] for that fraction of the memory that
            is free now. None: all memory of the device, or no limit if the device does not report
            it.
        chunk_bytes: least number of bytes that is mapped when a lease grows for a second time.

    Raises:
        ArenaError: the device cannot be used.
        ValueError: `max_bytes` or `chunk_bytes` is not as described.
    """

    def __init__(
        self,
        device: torch.device | str | int,
        max_bytes: int | float | str | None = None,
        *,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        self._device = _usable(torch.device(device))
        self._max_bytes = _budget(max_bytes, self._device)
        if not isinstance(chunk_bytes, int) or chunk_bytes < 1:
            raise ValueError(f"chunk_bytes is {chunk_bytes!r}, expected a positive number of bytes")
        self._native = _make_arena(self._device, self._max_bytes, chunk_bytes)

    @property
    def device(self) -> torch.device:
        """Return the device of the memory, with an index unless it is the CPU."""
        return self._device

    @property
    def max_bytes(self) -> int:
        """Return the most bytes that may be mapped at any time."""
        return self._max_bytes

    def lease(self) -> Lease:
        """Return a new, empty lease. A lease gives its memory back when nothing refers to it.

        Raises:
            ArenaError: the arena is closed.
        """
        with package_errors():
            return Lease(self._native.lease(), self._device)

    def stats(self) -> ArenaStats:
        """Return the state of the arena now."""
        return ArenaStats(**self._native.stats())

    def close(self) -> None:
        """Refuse all further requests. Leases and tensors keep their memory until they are gone."""
        with package_errors():
            self._native.close(_stream(self._device))

    def __enter__(self) -> CacheArena:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        now = self.stats()
        return (
            f"CacheArena(device='{self._device}', max_bytes={self._max_bytes}: "
            f"{format_bytes(now.mapped)} of {format_bytes(now.budget)} mapped in "
            f"{now.chunks} chunks, {format_bytes(now.in_use)} in use in {now.slots} slots of "
            f"{now.leases} leases)"
        )


def _usable(device: torch.device) -> torch.device:
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ArenaError(
            f"an arena on {device} needs a CUDA device, and torch {torch.__version__} sees none; "
            f"run `adacache info` for details. Use device='cpu', or a machine and a torch with CUDA"
        )
    if device.index is not None:
        return device
    current = getattr(getattr(torch, device.type, None), "current_device", None)
    return torch.device(device.type, current() if current else 0)


def _budget(max_bytes: int | float | str | None, device: torch.device) -> int:
    if max_bytes is None:
        return _all_of(device)
    if isinstance(max_bytes, str):
        return parse_bytes(max_bytes)
    if isinstance(max_bytes, float) and 0 < max_bytes <= 1:
        return max(1, int(max_bytes * free_memory(device)))
    if isinstance(max_bytes, int) and not isinstance(max_bytes, bool) and max_bytes > 0:
        return max_bytes
    raise ValueError(
        f"max_bytes is {max_bytes!r}, expected a positive number of bytes, a text such as "
        "'512MiB', '2GiB' or '1.5GB', or a float in (0, 1] for that fraction of the free memory"
    )


def _all_of(device: torch.device) -> int:
    try:
        return total_memory(device)
    except ValueError:
        # Such devices have ordinary allocations only: nothing is reserved in advance.
        return sys.maxsize


def _make_arena(device: torch.device, budget: int, chunk_bytes: int) -> _C.Arena | TorchArena:
    if device.type == "cpu" or (device.type == "cuda" and torch.version.hip is None):
        with package_errors():
            arena: _C.Arena = _native.module().Arena(
                device.type, device.index or 0, budget, chunk_bytes
            )
            return arena
    return TorchArena(device, budget, chunk_bytes)


def _stream(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(torch.cuda.current_stream(device).cuda_stream)


def _torch_may_hold_memory(device: torch.device) -> bool:
    """Return True if torch may have cached memory that it can free, as outside a capture."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def _bytes_of(spec: Spec) -> int:
    shape, dtype = spec if isinstance(spec, tuple) and len(spec) == 2 else (None, None)
    if not isinstance(shape, Sequence) or not isinstance(dtype, torch.dtype):
        raise TypeError(f"a tensor of an arena is a pair (shape, dtype), here it is {spec!r}")
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape of a tensor is {tuple(shape)}, expected no negative size")
    size = math.prod(shape) * dtype.itemsize
    if size > sys.maxsize:
        raise ArenaOutOfMemoryError(f"a tensor of {size} bytes is more than addresses can reach")
    return size


def _tensor(slot: Any, spec: Spec) -> Tensor:
    """Return the tensor of a spec in a slot, uint8 [bytes]."""
    # A tensor made in inference mode could not be written outside of it.
    with torch.inference_mode(False):
        memory = slot if isinstance(slot, Tensor) else from_dlpack(slot)
        shape, dtype = spec
        return memory.view(dtype).view(tuple(shape))
