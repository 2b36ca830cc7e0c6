"""The view of a tensor that kernels take, and the addresses of its elements.

A tensor is a :class:`View` of four dimensions, the last one contiguous. Programs work on tiles of
`ROWS` groups. A group is `VECTOR` neighbouring elements of the last dimension: 16 bytes of the
widest dtype if all tensors are aligned. Groups are numbered over the last two dimensions together;
the last dimension has `groups_per_row` of them.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class View(NamedTuple):
    """The address of the first element, and the strides of three dimensions in elements."""

    pointer: Any
    outer: Any
    middle: Any
    row: Any


@triton.jit
def tile_columns(
    tile, groups, groups_per_row, ROWS: tl.constexpr, VECTOR: tl.constexpr, INDEX: tl.constexpr
):
    """Return row, first element in the row, and mask of the groups of a tile, each `[ROWS, 1]`."""
    group = tile.to(INDEX) * ROWS + tl.arange(0, ROWS)[:, None]
    row = (group // groups_per_row).to(tl.int64)
    first = (group % groups_per_row) * VECTOR
    return row, first, group < groups


@triton.jit
def pointers(view, outer, middle, row, first, VECTOR: tl.constexpr):
    """Return the addresses `[ROWS, VECTOR]` of the elements of a tile."""
    group = view.pointer + (outer * view.outer + middle * view.middle + row * view.row + first)
    if VECTOR > 1:
        size: tl.constexpr = VECTOR * view.pointer.dtype.element_ty.primitive_bitwidth // 8
        group = tl.multiple_of(group, (size, size))  # In bytes. The launcher has checked it.
    return group + tl.arange(0, VECTOR)[None, :]


@triton.jit
def load(view, outer, middle, row, first, mask, VECTOR: tl.constexpr):
    """Return the elements of a tile in float32, undefined outside of the mask."""
    address = pointers(view, outer, middle, row, first, VECTOR)
    return tl.load(address, mask=mask).to(tl.float32)


@triton.jit
def load_or_zero(view, outer, middle, row, first, mask, VECTOR: tl.constexpr):
    """Return the elements of a tile in float32, 0 outside of the mask, ready to be summed."""
    address = pointers(view, outer, middle, row, first, VECTOR)
    return tl.load(address, mask=mask, other=0).to(tl.float32)
