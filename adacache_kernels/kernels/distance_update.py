"""The kernel of `distance_update`: store a residual, and sum up its distance and its motion."""

import triton
import triton.language as tl

from .tile_access import load_or_zero, pointers, tile_columns

SIZES = ("frames", "tiles", "groups", "groups_per_row")


@triton.jit(do_not_specialize=SIZES)
def distance_update_kernel(
    slot,
    x_out,
    x_in,
    previous,
    coefficients,
    partials,
    frames,
    tiles,
    groups,
    groups_per_row,
    METRIC: tl.constexpr,
    SLOT_HOLDS: tl.constexpr,
    STRIDES: tl.constexpr,
    RING: tl.constexpr,
    ROWS: tl.constexpr,
    VECTOR: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Update every `num_programs(0)`-th tile of one sample, each from its first to its last frame.

    The last `RING` frames stay in registers for the motion sums. Each group has its own sum, which
    costs a thread one register; the sums are reduced over the tile at the end.
    """
    program = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    dtype: tl.constexpr = slot.pointer.dtype.element_ty
    compared: tl.constexpr = len(previous) + (SLOT_HOLDS == "previous") > 0
    tl.assume(frames > 0)
    zero = tl.zeros((ROWS,), tl.float32)
    sums = (zero,) * (3 + 2 * len(STRIDES))
    for tile in range(program, tiles, tl.num_programs(0)):
        row, first, mask = tile_columns(tile, groups, groups_per_row, ROWS, VECTOR, INDEX)
        recent = (tl.zeros((ROWS, VECTOR), dtype),) * RING
        for frame in range(frames):
            at = frame.to(tl.int64)
            new = load_or_zero(x_out, sample, at, row, first, mask, VECTOR)
            if x_in is not None:
                new -= load_or_zero(x_in, sample, at, row, first, mask, VECTOR)
            stored = new.to(dtype)
            new = stored.to(tl.float32)
            if compared:
                old = tl.zeros((ROWS, VECTOR), tl.float32)
                for i in tl.static_range(len(previous)):
                    term = load_or_zero(previous[i], sample, at, row, first, mask, VECTOR)
                    old = add_term(old, coefficients, term, i)
                if SLOT_HOLDS == "previous":
                    term = load_or_zero(slot, sample, at, row, first, mask, VECTOR)
                    old = add_term(old, coefficients, term, len(previous))
                sums = add_distance(sums, old, new, METRIC)
            tl.store(pointers(slot, sample, at, row, first, VECTOR), stored, mask=mask)
            if RING > 0:
                sums = add_motion(sums, new, recent, frame, frames, STRIDES)
                recent = (stored,) + recent[:-1]
    out = partials + (sample * tl.num_programs(0) + program) * len(sums)
    store_sums(out, sums, METRIC)


@triton.jit
def store_sums(out, sums, METRIC: tl.constexpr):
    """Add up the sums of the threads and write them; only the cosine has a third sum."""
    for i in tl.static_range(len(sums)):
        if i == 2 and METRIC != "cosine":
            tl.store(out + i, 0.0)
        else:
            tl.store(out + i, tl.sum(sums[i]))


@triton.jit
def add_term(total, coefficients, term, INDEX: tl.constexpr):
    """Add a term to the forecast; without coefficients there is one term, with coefficient 1."""
    if coefficients is not None:
        term = tl.load(coefficients + INDEX) * term
    if INDEX > 0:
        term = total + term
    return term


@triton.jit
def add_distance(sums, old, new, METRIC: tl.constexpr):
    """Add a frame of a tile to the first three sums."""
    if METRIC == "cosine":
        head = (
            sums[0] + tl.sum(old * new, 1),
            sums[1] + tl.sum(old * old, 1),
            sums[2] + tl.sum(new * new, 1),
        )
    elif METRIC == "l2":
        change = old - new
        head = (sums[0] + tl.sum(change * change, 1), sums[1] + tl.sum(old * old, 1), sums[2])
    else:
        change = tl.abs(old - new)
        head = (sums[0] + tl.sum(change, 1), sums[1] + tl.sum(tl.abs(old), 1), sums[2])
    return head + sums[3:]


@triton.jit
def add_motion(sums, new, recent, frame, frames, STRIDES: tl.constexpr):
    """Add a frame of a tile to the two sums of each frame stride; a stride of 0 adds nothing."""
    size = tl.sum(tl.abs(new), 1)
    result = sums[:3]
    for i in tl.static_range(len(STRIDES)):
        if STRIDES[i] > 0:
            later = frame >= STRIDES[i]
            earlier = frame < frames - STRIDES[i]
            change = tl.sum(tl.abs(new - recent[STRIDES[i] - 1].to(tl.float32)), 1)
            result += (
                sums[3 + 2 * i] + tl.where(later, change, 0.0),
                sums[4 + 2 * i] + tl.where(later, size, 0.0) + tl.where(earlier, size, 0.0),
            )
        else:
            result += (sums[3 + 2 * i], sums[4 + 2 * i])
    return result
