"""Global memory: a fake address space over host arrays, with bounds, alignment and traffic."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .errors import MemoryFault, RaceError, UninitialisedRead
from .ptx_types import UNSIGNED, Array
from .shadow import Initialised, RaceShadow

if TYPE_CHECKING:
    import torch

FIRST_ADDRESS = 0x7F0000000000
GAP = 1 << 33
"""Buffers lie this far apart, so that a stray access hits nothing."""
ALIGNMENT = 256


@dataclass
class Traffic:
    """The bytes that one launch read from and wrote to one buffer."""

    loads: Counter[int] = field(default_factory=Counter)
    """Accesses of single lanes, by width in bytes."""
    stores: Counter[int] = field(default_factory=Counter)
    load_instructions: Counter[int] = field(default_factory=Counter)
    """Executed instructions, one for each warp, by width in bytes of a lane's access."""
    store_instructions: Counter[int] = field(default_factory=Counter)

    @property
    def bytes_loaded(self) -> int:
        """Return the loaded bytes, counted once for each lane."""
        return sum(width * count for width, count in self.loads.items())

    @property
    def bytes_stored(self) -> int:
        """Return the stored bytes, counted once for each lane."""
        return sum(width * count for width, count in self.stores.items())


class Buffer:
    """One contiguous piece of global memory, shared with the host."""

    def __init__(self, base: int, raw: Array, name: str, initialised: Initialised | None) -> None:
        """Make a buffer; `initialised` is None for memory that counts as written."""
        self.base = base
        self.raw = raw
        self.name = name
        self.size = raw.size
        self.initialised = initialised
        self.traffic = Traffic()
        self._races: RaceShadow | None = None
        # Cells start at an aligned address, so that no aligned access lies in two.
        self._lead = base % ALIGNMENT

    def begin_launch(self) -> None:
        """Forget the accesses of the last launch."""
        self.traffic = Traffic()
        self._races = None

    def elements(self, offsets: Array, width: int) -> tuple[Array, Array]:
        """Return an array of `width`-byte elements and the indices of the accesses in it."""
        if self.base % width == 0:
            whole = self.size // width * width
            return self.raw[:whole].view(UNSIGNED[width * 8]), offsets // width
        start = width - self.base % width
        whole = (self.size - start) // width * width
        aligned = self.raw[start : start + whole].view(UNSIGNED[width * 8])
        return aligned, (offsets - start) // width

    def check_load(self, offsets: Array, width: int, keys: Array, ordered: bool) -> None:
        """Raise if the bytes were never written, or if another thread may be writing them."""
        offsets = offsets + self._lead
        if self.initialised and not self.initialised.all_written(offsets, width):
            raise UninitialisedRead(f"read of global memory never written: {self.name}")
        if not ordered:
            self._shadow().note_load(offsets, width, keys)

    def check_store(self, offsets: Array, width: int, keys: Array) -> None:
        """Raise if another thread may be reading or writing the bytes."""
        if self._shadow().note_store(offsets + self._lead, width, keys):
            raise RaceError(f"{self.name}: lanes of one store write the same byte")

    def note_written(self, offsets: Array, width: int) -> None:
        """Mark the bytes as written."""
        if self.initialised:
            self.initialised.note_store(offsets + self._lead, width)

    def _shadow(self) -> RaceShadow:
        if self._races is None:
            self._races = RaceShadow(self.size + self._lead + ALIGNMENT, self.name)
        return self._races


class GlobalMemory:
    """All buffers that a launch can reach."""

    def __init__(self) -> None:
        """Make an empty address space."""
        self.buffers: list[Buffer] = []
        self._bases: list[int] = []
        self._next = FIRST_ADDRESS

    def add(
        self,
        data: "Array | torch.Tensor",
        name: str = "",
        *,
        initialised: bool | Initialised = True,
        misalignment: int = 0,
    ) -> int:
        """Expose an array or a contiguous CPU tensor without a copy; return its address.

        The address is a multiple of 256 plus `misalignment`.
        """
        raw = _raw_bytes(data)
        base = self._next + misalignment
        self._next += GAP + (raw.size + GAP - 1) // GAP * GAP
        self._insert(base, raw, name, initialised)
        return base

    def add_at(self, address: int, data: Array, name: str = "") -> None:
        """Expose an array at a given free address."""
        self._insert(address, _raw_bytes(data), name, True)

    def _insert(self, base: int, raw: Array, name: str, initialised: bool | Initialised) -> None:
        written = initialised if isinstance(initialised, Initialised) else None
        if initialised is False:
            written = Initialised(raw.size + 2 * ALIGNMENT)
        position = bisect_right(self._bases, base)
        buffer = Buffer(base, raw, name or f"buffer {len(self.buffers)}", written)
        self.buffers.insert(position, buffer)
        self._bases.insert(position, base)

    def begin_launch(self) -> None:
        """Forget the accesses of the last launch."""
        for buffer in self.buffers:
            buffer.begin_launch()

    def locate(
        self, addresses: Array, width: int, what: str
    ) -> list[tuple[Buffer, Array, Array | None]]:
        """Return the buffers of the accesses, each with offsets and its accesses (None: all)."""
        if int(np.bitwise_or.reduce(addresses)) & (width - 1):
            bad = int(addresses[np.flatnonzero(addresses & (width - 1))[0]])
            raise MemoryFault(f"misaligned global {what} of {width} bytes at {self._describe(bad)}")
        low, high = int(addresses.min()), int(addresses.max())
        buffer = self._at(low)
        if buffer is not None and high + width <= buffer.base + buffer.size and low >= buffer.base:
            return [(buffer, addresses - buffer.base, None)]
        return self._locate_scattered(addresses, width, what)

    def _locate_scattered(
        self, addresses: Array, width: int, what: str
    ) -> list[tuple[Buffer, Array, Array | None]]:
        hits: list[tuple[Buffer, Array, Array | None]] = []
        missing = np.ones(addresses.shape, bool)
        for buffer in self.buffers:
            last = buffer.base + buffer.size - width
            inside = (addresses >= buffer.base) & (addresses <= last)
            if inside.any():
                hits.append((buffer, addresses[inside] - buffer.base, inside))
                missing &= ~inside
        if missing.any():
            first = int(addresses[np.flatnonzero(missing)[0]])
            raise MemoryFault(
                f"global {what} of {width} bytes out of bounds in {int(missing.sum())} lanes, "
                f"first at {self._describe(first)}"
            )
        return hits

    def _at(self, address: int) -> Buffer | None:
        position = bisect_right(self._bases, address) - 1
        return self.buffers[position] if position >= 0 else None

    def _describe(self, address: int) -> str:
        if not self.buffers:
            return f"{address:#x}"
        near = min(self.buffers, key=lambda buffer: abs(address - buffer.base))
        return f"{address:#x} = {near.name}{address - near.base:+d} of {near.size} bytes"


def _raw_bytes(data: "Array | torch.Tensor") -> Array:
    if isinstance(data, np.ndarray):
        if not data.flags.c_contiguous:
            raise ValueError("only contiguous arrays can be added")
        return data.reshape(-1).view(np.uint8)
    if not data.is_contiguous():
        raise ValueError("only contiguous tensors can be added")
    if data.numel() == 0:
        return np.zeros(0, np.uint8)
    import torch

    return data.detach().reshape(-1).view(torch.uint8).numpy()
