"""The kernel of `conditional_add`: `out = x + sum_i c_i * r_i` if the flag is set, else `x`."""

import triton
import triton.language as tl

from .quantization import widened
from .tile_access import load, pointers, tile_columns

SIZES = ("middle", "tiles", "groups", "groups_per_row")


@triton.jit(do_not_specialize=SIZES)
def conditional_add_kernel(
    out,
    x,
    residuals,
    scales,
    coefficients,
    flag,
    middle,
    tiles,
    groups,
    groups_per_row,
    ROWS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Write one tile of one plane. Residuals of uint8 are float8 e4m3fn."""
    program = tl.program_id(0)
    plane = (program // tiles).to(tl.int64)
    outer, inner = plane // middle, plane % middle
    row, first, mask = tile_columns(program % tiles, groups, groups_per_row, ROWS, VECTOR, INDEX)
    value = tl.load(pointers(x, outer, inner, row, first, VECTOR), mask=mask)
    if tl.load(flag) != 0:
        total = value.to(tl.float32)
        for i in tl.static_range(len(residuals)):
            term = load_stored(residuals[i], outer, inner, row, first, mask, VECTOR)
            if scales[i] is not None:
                term *= load(scales[i], outer, inner, row, 0 * first, mask, 1)
            total += tl.load(coefficients + i) * term
        value = total.to(value.dtype)
    tl.store(pointers(out, outer, inner, row, first, VECTOR), value, mask=mask)


@triton.jit
def load_stored(view, outer, middle, row, first, mask, VECTOR: tl.constexpr):
    """Return a tile of a stored residual in float32, before its scale."""
    return widened(tl.load(pointers(view, outer, middle, row, first, VECTOR), mask=mask))
