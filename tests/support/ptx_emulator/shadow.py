"""Shadow memory: the last accesses to each byte, and the bytes that were written.

A cell of shadow memory represents a run of bytes. It starts as wide as the widest access and is
split at a narrower access. So its answers are exact for single bytes, and wide accesses, the
common case, need one cell for sixteen bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import RaceError, Unsupported
from .ptx_types import Array

WIDEST_CELL = 16

# A key has the CTA, the barriers that the CTA and the warp have passed, and the thread.
CTA_SHIFT = 40
EPOCH_SHIFT = 24
WARP_EPOCH_SHIFT = 11
THREAD_MASK = (1 << WARP_EPOCH_SHIFT) - 1
MOST_EPOCHS = 1 << (CTA_SHIFT - EPOCH_SHIFT)
MOST_WARP_EPOCHS = 1 << (EPOCH_SHIFT - WARP_EPOCH_SHIFT)
MOST_CTAS = (1 << (63 - CTA_SHIFT)) - 2

# Numbers beyond the 1024 threads: several threads of one warp, of one CTA, of several CTAs.
SEVERAL_IN_WARP = 1024
SEVERAL_IN_CTA = 1024 + 32
SEVERAL_CTAS = np.int64((1 << 63) - 1)
WARP_OF_CODE = np.concatenate([np.arange(1024) // 32, np.arange(32), np.full(992, -1)])


def thread_keys(cta: Array, thread: Array) -> Array:
    """Return the keys of threads that have passed no barrier yet. No thread has the key zero."""
    if cta.size and int(cta.max()) >= MOST_CTAS:
        raise Unsupported(f"a grid of more than {MOST_CTAS} programs")
    return ((cta.astype(np.int64) + 1) << CTA_SHIFT) | thread.astype(np.int64)


class Cells:
    """Arrays with one value for each run of `width` bytes."""

    def __init__(self, size: int, **dtypes: npt.DTypeLike) -> None:
        """Make zeroed arrays, named and typed by the keywords, for `size` bytes."""
        self.width = WIDEST_CELL
        count = -(-size // WIDEST_CELL)
        self.arrays: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(count, dtype) for name, dtype in dtypes.items()
        }

    def index(self, offsets: Array, width: int) -> Array:
        """Return the cells `[accesses, cells]` of each access; split cells that are too wide."""
        if width < self.width:
            factor = self.width // width
            self.arrays = {name: np.repeat(a, factor) for name, a in self.arrays.items()}
            self.width = width
        first = offsets // self.width
        if width == self.width:
            return first[:, None]
        return first[:, None] + np.arange(width // self.width)


class Initialised:
    """The written bytes of a memory."""

    def __init__(self, size: int) -> None:
        """Start with no written bytes."""
        self._cells = Cells(size, written=np.bool_)

    def note_store(self, offsets: Array, width: int) -> None:
        """Mark bytes as written."""
        index = self._cells.index(offsets, width)
        self._cells.arrays["written"][index] = True

    def all_written(self, offsets: Array, width: int) -> bool:
        """Return for each access True if all its bytes have been written."""
        index = self._cells.index(offsets, width)
        return bool(self._cells.arrays["written"][index].all())


class RaceShadow:
    """The last writer and the last reader of each byte of one memory."""

    def __init__(self, size: int, name: str) -> None:
        """Start without any access."""
        self._cells = Cells(size, writer=np.int64, reader=np.int64)
        self._name = name

    def note_load(self, offsets: Array, width: int, keys: Array) -> None:
        """Record a load; raise RaceError if another thread wrote and the two are not ordered."""
        index = self._cells.index(offsets, width)
        me = keys[:, None]
        self._forbid(index, self._cells.arrays["writer"][index], me, "reads what", "wrote")
        reader = self._cells.arrays["reader"]
        before = reader[index]
        joined = np.broadcast_to(me, index.shape)
        if before.any():
            joined = _join_readers(before, joined)
        reader[index] = joined
        after = reader[index]
        if (after != joined).any():
            self._join_within_instruction(index, after, joined)

    def note_store(self, offsets: Array, width: int, keys: Array) -> bool:
        """Record a store; raise RaceError like `note_load`.

        Return True if several threads of a program wrote the same byte in this instruction.
        Triton's stores to shared memory do that, with equal values.
        """
        index = self._cells.index(offsets, width)
        me = keys[:, None]
        writer, reader = self._cells.arrays["writer"], self._cells.arrays["reader"]
        self._forbid(index, writer[index], me, "overwrites what", "wrote")
        self._forbid(index, reader[index], me, "overwrites what", "read")
        writer[index] = me
        winner = writer[index]
        clash = winner != me
        if not clash.any():
            return False
        programs = ((winner ^ me) >> CTA_SHIFT) != 0
        if programs.any():
            self._report(index, winner, me, programs, "overwrites what", "wrote")
        return True

    def _forbid(self, index: Array, other: Array, me: Array, does: str, did: str) -> None:
        suspects = other != me
        suspects &= other != 0
        if not suspects.any():
            return
        changed = other ^ me
        bad = suspects & (((changed >> CTA_SHIFT) != 0) | ((changed >> EPOCH_SHIFT) == 0))
        if not bad.any():
            return
        bad &= ~_ordered_by_warp_barrier(other, me)
        if bad.any():
            self._report(index, other, me, bad, does, did)

    def _report(
        self, index: Array, other: Array, me: Array, bad: Array, does: str, did: str
    ) -> None:
        row, column = np.argwhere(bad)[0]
        offset = int(index[row, column]) * self._cells.width
        raise RaceError(
            f"{self._name} at byte {offset}: {_who(me[row, 0])} {does} "
            f"{_who(other[row, column])} {did}, with nothing to order them"
        )

    def _join_within_instruction(self, index: Array, after: Array, joined: Array) -> None:
        several = _join_readers(after, joined)
        reader = self._cells.arrays["reader"]
        # The mildest result first, so that the widest result of a cell stays.
        for level in (SEVERAL_IN_WARP, SEVERAL_IN_CTA, THREAD_MASK):
            chosen = _level(several) == level
            reader[index[chosen]] = several[chosen]


def _level(keys: Array) -> Array:
    code = keys & THREAD_MASK
    in_warp = (code >= SEVERAL_IN_WARP) & (code < SEVERAL_IN_CTA)
    return np.where(in_warp, SEVERAL_IN_WARP, code)


def _same_warp(a: Array, b: Array) -> Array:
    warp_a, warp_b = WARP_OF_CODE[a & THREAD_MASK], WARP_OF_CODE[b & THREAD_MASK]
    return (warp_a == warp_b) & (warp_a >= 0)


def _ordered_by_warp_barrier(other: Array, me: Array) -> Array:
    changed = other ^ me
    same_epoch = (changed >> EPOCH_SHIFT) == 0
    later = (changed >> WARP_EPOCH_SHIFT) != 0
    return same_epoch & later & _same_warp(other, np.broadcast_to(me, other.shape))


def _join_readers(before: Array, me: Array) -> Array:
    """Return the key that represents the earlier reader and the current one."""
    changed = before ^ me
    same_cta = (changed >> CTA_SHIFT) == 0
    same_epoch = (changed >> EPOCH_SHIFT) == 0
    same_warp = _same_warp(before, me)
    same_warp_epoch = (changed >> WARP_EPOCH_SHIFT) == 0

    identity = me & ~np.int64(THREAD_MASK)
    in_warp = identity | (SEVERAL_IN_WARP + WARP_OF_CODE[me & THREAD_MASK])
    within = np.where(same_warp, np.where(same_warp_epoch, in_warp, me), identity | SEVERAL_IN_CTA)
    # Earlier reads of the same program lie before a barrier: the current read represents them.
    joined = np.where(same_cta, np.where(same_epoch, within, me), SEVERAL_CTAS)
    return np.where((before == 0) | (before == me), me, joined)


def _who(key: np.int64) -> str:
    if key == SEVERAL_CTAS:
        return "several programs"
    cta, code = (int(key) >> CTA_SHIFT) - 1, int(key) & THREAD_MASK
    if code >= SEVERAL_IN_CTA:
        return f"several warps of program {cta}"
    if code >= SEVERAL_IN_WARP:
        return f"several threads of program {cta}, warp {code - SEVERAL_IN_WARP}"
    return f"program {cta}, thread {code}"
