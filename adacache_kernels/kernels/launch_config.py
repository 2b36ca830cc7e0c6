"""Block sizes by dtype, size and architecture: a table instead of autotuning at run time.

No GPU has tuned it. The choices follow from what the compiler reports (registers, no spills, see
tests/kernels/test_ahead_of_time.py) and from the bytes that have to be in flight;
`bench/ops/tune.py` measures the alternatives on a GPU and prints the table anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_STRIDE = 32
"""The longest frame stride for which the frames in between are kept in registers."""


@dataclass(frozen=True)
class Config:
    """How a kernel is launched.

    Args:
        vectors: 16-byte groups a thread works on at once.
        num_warps: warps of 32 threads a program.
        max_programs: most programs for each sample; they take the tiles in turn.
    """

    vectors: int
    num_warps: int
    max_programs: int = 2**31 - 1

    def elements(self, itemsize: int) -> int:
        """Elements of a tile."""
        return self.groups * (16 // itemsize)

    @property
    def groups(self) -> int:
        """16-byte groups of a tile."""
        return self.vectors * self.num_warps * 32


# By the least bytes a sample has in one frame, largest first. A small tile spreads a small tensor
# over more of the multiprocessors. The programs of a sample fill the largest GPU of the kind about
# eight times, so that the partial sums stay few and the last round is short.
_DISTANCE = {
    80: ((1 << 20, Config(1, 4, 1024)), (0, Config(1, 2, 1024))),
    90: ((1 << 20, Config(1, 4, 2048)), (0, Config(1, 2, 2048))),
}

MAX_CHANNELS = 8192
"""The longest token that is stored in eight bits: all of it is in registers at once."""
RING_ELEMENTS = 64
"""Most elements of earlier frames that a thread keeps of a token that is stored in eight bits."""


@dataclass(frozen=True)
class TokenConfig:
    """How the update into eight bits is launched, a token at a time.

    Args:
        groups: 16-byte groups of the widest dtype that a program takes, a power of two.
        num_warps: warps of 32 threads a program.
        max_programs: most programs for each sample; they take the tokens in turn.
    """

    groups: int
    num_warps: int
    max_programs: int = 2048

    @property
    def groups_per_thread(self) -> int:
        return max(1, self.groups // (32 * self.num_warps))


def token_config(groups: int) -> TokenConfig:
    """For tokens of so many groups: two a thread, which leaves room for the other operands."""
    padded = 1 << (max(groups, 1) - 1).bit_length()
    return TokenConfig(padded, min(16, max(1, padded // 64)))


# By bytes of the tensor.
_ELEMENTWISE = {
    80: ((1 << 22, Config(2, 4)), (0, Config(1, 4))),
    90: ((1 << 22, Config(2, 4)), (0, Config(1, 4))),
}

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, for which every entry is compiled in the tests."""


def distance_config(itemsize: int, columns: int, arch: int) -> Config:
    """For the distance update of slots of `itemsize` bytes an element, `columns` a frame."""
    return _look_up(_DISTANCE, arch, itemsize * columns)


def elementwise_config(itemsize: int, elements: int, arch: int) -> Config:
    """For residual_update and conditional_add on `elements` elements of `itemsize` bytes."""
    return _look_up(_ELEMENTWISE, arch, itemsize * elements)


def _look_up(table: Mapping[int, tuple[tuple[int, Config], ...]], arch: int, size: int) -> Config:
    known = [least for least in table if least <= arch]
    rows = table[max(known, default=min(table))]
    return next(config for least, config in rows if size >= least)
