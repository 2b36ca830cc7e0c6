"""The kernel of `residual_update`: `slot = x_out - x_in`."""

import triton
import triton.language as tl

from .tile_access import load, pointers, tile_columns

SIZES = ("middle", "tiles", "groups", "groups_per_row")


@triton.jit(do_not_specialize=SIZES)
def residual_update_kernel(
    slot,
    x_out,
    x_in,
    middle,
    tiles,
    groups,
    groups_per_row,
    ROWS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Store one tile of one plane."""
    program = tl.program_id(0)
    plane = (program // tiles).to(tl.int64)
    outer, inner = plane // middle, plane % middle
    row, first, mask = tile_columns(program % tiles, groups, groups_per_row, ROWS, VECTOR, INDEX)
    residual = load(x_out, outer, inner, row, first, mask, VECTOR)
    residual -= load(x_in, outer, inner, row, first, mask, VECTOR)
    address = pointers(slot, outer, inner, row, first, VECTOR)
    tl.store(address, residual.to(slot.pointer.dtype.element_ty), mask=mask)
