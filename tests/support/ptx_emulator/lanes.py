"""The threads of some programs as lanes of numpy vectors: registers, shared memory, identity."""

from dataclasses import dataclass

import numpy as np

from .errors import MemoryFault, RaceError, UninitialisedRead, Unsupported
from .memory import Buffer, GlobalMemory
from .ptx_types import UNSIGNED, Array, Mask
from .shadow import (
    EPOCH_SHIFT,
    MOST_EPOCHS,
    MOST_WARP_EPOCHS,
    WARP_EPOCH_SHIFT,
    Initialised,
    RaceShadow,
    thread_keys,
)

WARP = 32
POISON = 0x7FFFDEAD7FFFDEAD
"""The value of an unwritten register: a NaN as a float, a wild address as a pointer."""


@dataclass(frozen=True)
class Geometry:
    """The geometry of a launch."""

    grid: tuple[int, int, int]
    threads: int
    shared: int
    """Bytes of shared memory of one program, static and dynamic."""


class Lanes:
    """The lanes of several programs (CTAs) that run together."""

    def __init__(
        self,
        geometry: Geometry,
        ctas: Array,
        registers: dict[str, int],
        parameters: dict[str, Array],
        memory: GlobalMemory,
        check: bool,
        thread_races: bool,
    ) -> None:
        """Start with all lanes alive and all registers poisoned."""
        self.geometry = geometry
        self.parameters = parameters
        self.memory = memory
        self.check = check
        self._thread_races = thread_races
        self.programs = len(ctas)
        self.count = self.programs * geometry.threads
        self.slot = np.repeat(np.arange(self.programs), geometry.threads)
        self.cta = np.repeat(ctas.astype(np.int64), geometry.threads)
        self.thread = np.tile(np.arange(geometry.threads), self.programs)
        self.lane = self.thread % WARP
        self.warps_per_program = -(-geometry.threads // WARP)
        self.warp = self.slot * self.warps_per_program + self.thread // WARP
        self.everyone = np.arange(self.count)
        self.alive = np.ones(self.count, bool)
        self.registers = self._poisoned(registers)
        self._special: dict[str, Array] = {}

        self._shared_stride = -(-geometry.shared // 16) * 16
        self._shared = np.zeros(self.programs * self._shared_stride, np.uint8)
        if check:
            self.keys = thread_keys(self.cta, self.thread)
            self._barriers = 0
            self._warp_barriers = 0
            self._shared_written = Initialised(self._shared.size)
            self._shared_races = RaceShadow(self._shared.size, "shared memory")

    def selected(self, mask: Mask) -> Array:
        """Return the indices of the active lanes."""
        return self.everyone if mask is None else np.flatnonzero(mask)

    def active(self, mask: Mask) -> Array:
        """Return the active lanes as booleans."""
        return self.alive if mask is None else mask

    def special(self, name: str) -> Array:
        """Return a special register such as %tid.x, as 32-bit unsigned values."""
        if name not in self._special:
            self._special[name] = self._compute_special(name).astype(np.uint32)
        return self._special[name]

    def pass_barrier(self, released: Array) -> None:
        """Record that the lanes of some programs have met at a barrier."""
        if not self.check:
            return
        self._barriers += 1
        if self._barriers >= MOST_EPOCHS:
            raise Unsupported(f"more than {MOST_EPOCHS} barriers in one launch")
        self.keys = np.where(released, self.keys + (1 << EPOCH_SHIFT), self.keys)

    def pass_warp_barrier(self, mask: Mask) -> None:
        """Record that the lanes of some warps have met at a warp barrier."""
        if not self.check:
            return
        self._warp_barriers += 1
        if self._warp_barriers >= MOST_WARP_EPOCHS:
            raise Unsupported(f"more than {MOST_WARP_EPOCHS} warp barriers in one launch")
        later = self.keys + (1 << WARP_EPOCH_SHIFT)
        self.keys = np.where(self.active(mask), later, self.keys)

    # In the accesses to memory, `lanes` are indices, and `addresses` belong to them.

    def load_global(
        self, addresses: Array, lanes: Array, width: int, count: int, ordered: bool = False
    ) -> list[Array]:
        """Load `count` elements of `width` bytes for each lane."""
        hits = self.memory.locate(addresses, width * count, "load")
        if len(hits) == 1:
            return self._load_from(hits[0][0], hits[0][1], lanes, width, count, ordered)
        values = [np.zeros(lanes.size, UNSIGNED[width * 8]) for _ in range(count)]
        for buffer, offsets, inside in hits:
            parts = self._load_from(buffer, offsets, lanes[inside], width, count, ordered)
            for whole, part in zip(values, parts, strict=True):
                whole[inside] = part
        return values

    def store_global(self, addresses: Array, lanes: Array, width: int, values: list[Array]) -> None:
        """Store elements of `width` bytes, with one list entry for each element of the vector."""
        total = width * len(values)
        for buffer, offsets, inside in self.memory.locate(addresses, total, "store"):
            mine = lanes if inside is None else lanes[inside]
            parts = values if inside is None else [value[inside] for value in values]
            buffer.traffic.stores[total] += mine.size
            buffer.traffic.store_instructions[total] += self._warps_among(mine)
            if self.check:
                buffer.check_store(offsets, total, self._global_keys(mine))
                buffer.note_written(offsets, total)
            data, index = buffer.elements(offsets, width)
            _scatter(data, index, parts)

    def load_shared(self, addresses: Array, lanes: Array, width: int, count: int) -> list[Array]:
        """Load `count` elements of `width` bytes for each lane."""
        offsets = self._shared_offsets(addresses, lanes, width * count, "load")
        if self.check:
            if not self._shared_written.all_written(offsets, width * count):
                raise UninitialisedRead("read of shared memory never written")
            self._shared_races.note_load(offsets, width * count, self.keys[lanes])
        return _gather(self._shared.view(UNSIGNED[width * 8]), offsets // width, count)

    def store_shared(self, addresses: Array, lanes: Array, width: int, values: list[Array]) -> None:
        """Store elements of `width` bytes, with one list entry for each element of the vector."""
        total = width * len(values)
        offsets = self._shared_offsets(addresses, lanes, total, "store")
        data, index = self._shared.view(UNSIGNED[width * 8]), offsets // width
        if not self.check:
            _scatter(data, index, values)
            return
        same_bytes = self._shared_races.note_store(offsets, total, self.keys[lanes])
        self._shared_written.note_store(offsets, total)
        _scatter(data, index, values)
        if same_bytes:
            _forbid_lost_values(data, index, values)

    def shared_elements(self, addresses: Array, lanes: Array, width: int) -> tuple[Array, Array]:
        """Return shared memory as elements of `width` bytes, and the accesses' indices in it."""
        offsets = self._shared_offsets(addresses, lanes, width, "atomic")
        if self.check:
            self._shared_written.note_store(offsets, width)
        return self._shared.view(UNSIGNED[width * 8]), offsets // width

    def _load_from(
        self, buffer: Buffer, offsets: Array, lanes: Array, width: int, count: int, ordered: bool
    ) -> list[Array]:
        total = width * count
        buffer.traffic.loads[total] += lanes.size
        buffer.traffic.load_instructions[total] += self._warps_among(lanes)
        if self.check:
            buffer.check_load(offsets, total, self._global_keys(lanes), ordered)
        data, index = buffer.elements(offsets, width)
        return _gather(data, index, count)

    def _global_keys(self, lanes: Array) -> Array:
        """Return the race keys of global accesses: those of threads, or of whole programs."""
        if self._thread_races:
            return self.keys[lanes]
        return thread_keys(self.cta[lanes], np.zeros(lanes.size, np.int64))

    def _shared_offsets(self, addresses: Array, lanes: Array, width: int, what: str) -> Array:
        if int(addresses.max()) + width > self.geometry.shared or int(addresses.min()) < 0:
            worst = int(addresses.max())
            raise MemoryFault(
                f"shared {what} of {width} bytes out of bounds: "
                f"at {worst:#x} of {self.geometry.shared} bytes"
            )
        if int(np.bitwise_or.reduce(addresses)) & (width - 1):
            raise MemoryFault(f"misaligned shared {what} of {width} bytes")
        return addresses + self.slot[lanes] * self._shared_stride

    def _warps_among(self, lanes: Array) -> int:
        if lanes.size == self.count:
            return self.programs * self.warps_per_program
        warps = self.warp[lanes]
        return 1 + int(np.count_nonzero(warps[1:] != warps[:-1]))

    def _poisoned(self, registers: dict[str, int]) -> dict[str, Array]:
        # No register is changed in place, so all can start as the same array.
        poison = {
            width: np.full(self.count, POISON & ((1 << width) - 1), UNSIGNED[width])
            for width in (8, 16, 32, 64)
        }
        poison[1] = np.ones(self.count, bool)
        return {name: poison[width] for name, width in registers.items() if width in poison}

    def _compute_special(self, name: str) -> Array:
        grid = self.geometry.grid
        constants = {"%tid.y": 0, "%tid.z": 0, "%ntid.x": self.geometry.threads}
        constants |= {"%ntid.y": 1, "%ntid.z": 1}
        constants |= {f"%nctaid.{axis}": extent for axis, extent in zip("xyz", grid, strict=True)}
        if name in constants:
            return np.full(self.count, constants[name])
        match name:
            case "%tid.x":
                return self.thread
            case "%laneid":
                return self.lane
            case "%ctaid.x":
                return self.cta % grid[0]
            case "%ctaid.y":
                return self.cta // grid[0] % grid[1]
            case "%ctaid.z":
                return self.cta // (grid[0] * grid[1])
        raise Unsupported(f"special register {name}")


def _gather(data: Array, index: Array, count: int) -> list[Array]:
    return [data[index + element] for element in range(count)]


def _scatter(data: Array, index: Array, values: list[Array]) -> None:
    for element, value in enumerate(values):
        data[index + element] = value


def _forbid_lost_values(data: Array, index: Array, values: list[Array]) -> None:
    for element, value in enumerate(values):
        if (data[index + element] != value).any():
            raise RaceError("lanes of one store write different values to the same shared byte")
