"""Block sizes by dtype, size and architecture: a table instead of autotuning at run time.

The table is not tuned on a GPU. The choices follow from the compiler's report (registers, no
spills, see tests/kernels/test_ahead_of_time.py) and from the bytes that have to be in flight.
`bench/ops/tune.py` measures the alternatives on a GPU and prints a new table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_STRIDE = 32
"""The longest frame stride; the frames in between stay in registers."""


@dataclass(frozen=True)
class Config:
    """The launch of a kernel that works on tiles.

    Args:
        vectors: the 16-byte groups that a thread works on at once.
        num_warps: the warps of 32 threads of a program.
        max_programs: the most programs for a sample; each takes every n-th tile.
    """

    vectors: int
    num_warps: int
    max_programs: int = 2**31 - 1

    def elements(self, itemsize: int) -> int:
        """Return the elements of a tile, of `itemsize` bytes each."""
        return self.groups * (16 // itemsize)

    @property
    def groups(self) -> int:
        """Return the 16-byte groups of a tile."""
        return self.vectors * self.num_warps * 32


# By the least bytes of a sample in one frame, largest first. A small tile spreads a small tensor
# over more multiprocessors. The programs of a sample fill the largest GPU of an architecture about
# eight times, so that there are few partial sums and the last round is short.
_DISTANCE = {
    80: ((1 << 20, Config(1, 4, 1024)), (0, Config(1, 2, 1024))),
    90: ((1 << 20, Config(1, 4, 2048)), (0, Config(1, 2, 2048))),
}

MAX_CHANNELS = 8192
"""The longest token that is stored in eight bits: all its channels are in registers at once."""
RING_ELEMENTS = 64
"""The most elements of earlier frames that a thread keeps of a token stored in eight bits."""


@dataclass(frozen=True)
class TokenConfig:
    """The launch of the update into eight bits, one token at a time.

    Args:
        groups: the 16-byte groups of the widest dtype in a token, padded to a power of two.
        num_warps: the warps of 32 threads of a program.
        max_programs: the most programs for a sample; each takes every n-th token.
    """

    groups: int
    num_warps: int
    max_programs: int = 2048

    @property
    def groups_per_thread(self) -> int:
        """Return the groups of a token that one thread holds."""
        return max(1, self.groups // (32 * self.num_warps))


def token_config(groups: int) -> TokenConfig:
    """Return the launch for tokens of `groups` groups.

    A thread holds two groups, which leaves registers for the other operands.
    """
    padded = 1 << (max(groups, 1) - 1).bit_length()
    return TokenConfig(padded, min(16, max(1, padded // 64)))


# By the least bytes of the tensor, largest first.
_ELEMENTWISE = {
    80: ((1 << 22, Config(2, 4)), (0, Config(1, 4))),
    90: ((1 << 22, Config(2, 4)), (0, Config(1, 4))),
}

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""The compute capabilities, times ten, for which the tests compile every entry."""


def distance_config(itemsize: int, columns: int, arch: int) -> Config:
    """Return the launch of `distance_update` for a slot `[B, F, S, C]`.

    Args:
        itemsize: the bytes of an element of the slot.
        columns: the elements of a sample that its programs divide.
        arch: the compute capability times ten.
    """
    return _look_up(_DISTANCE, arch, itemsize * columns)


def elementwise_config(itemsize: int, elements: int, arch: int) -> Config:
    """Return the launch of `residual_update` and `conditional_add` for a tensor.

    Args:
        itemsize: the bytes of an element.
        elements: the elements of the tensor.
        arch: the compute capability times ten.
    """
    return _look_up(_ELEMENTWISE, arch, itemsize * elements)


def _look_up(table: Mapping[int, tuple[tuple[int, Config], ...]], arch: int, size: int) -> Config:
    known = [least for least in table if least <= arch]
    rows = table[max(known, default=min(table))]
    return next(config for least, config in rows if size >= least)
