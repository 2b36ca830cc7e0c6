"""The kernel of `distance_update` for a slot of eight bits, with one scale for each token."""

import triton
import triton.language as tl

from .distance_update import add_distance, add_motion, add_term, store_sums
from .quantization import narrowed, widened
from .tile_access import load_or_zero, pointers

SIZES = ("frames", "tokens", "groups_per_row")


@triton.jit(do_not_specialize=SIZES)
def quantized_update_kernel(
    slot,
    scale,
    x_out,
    x_in,
    previous,
    previous_scales,
    coefficients,
    partials,
    frames,
    tokens,
    groups_per_row,
    METRIC: tl.constexpr,
    SLOT_HOLDS: tl.constexpr,
    STRIDES: tl.constexpr,
    RING: tl.constexpr,
    GROUPS: tl.constexpr,
    VECTOR: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Update every `num_programs(0)`-th token of a sample, each from its first to its last frame.

    A program holds all channels of a token in registers at once, because they share a scale.
    Residuals of uint8 are float8 e4m3fn.
    """
    sample = tl.program_id(1).to(tl.int64)
    compared: tl.constexpr = len(previous) + (SLOT_HOLDS == "previous") > 0
    tl.assume(frames > 0)
    group = tl.arange(0, GROUPS)[:, None]
    first, mask = group * VECTOR, group < groups_per_row
    zero = tl.zeros((GROUPS,), tl.float32)
    sums = (zero,) * (3 + 2 * len(STRIDES))
    for token in range(tl.program_id(0), tokens, tl.num_programs(0)):
        row = token.to(tl.int64)
        recent = (tl.zeros((GROUPS, VECTOR), tl.float32),) * RING
        for frame in range(frames):
            at = frame.to(tl.int64)
            new = load_or_zero(x_out, sample, at, row, first, mask, VECTOR)
            if x_in is not None:
                new -= load_or_zero(x_in, sample, at, row, first, mask, VECTOR)
            if SLOT_HOLDS == "previous":
                held = tl.load(pointers(slot, sample, at, row, first, VECTOR), mask=mask, other=0)
                held_scale = tl.load(scale_address(scale, sample, at, row))
                # Every thread has read the scale before one of them writes it below.
                tl.debug_barrier()
            codes, new_scale = quantize(new, slot.pointer.dtype.element_ty, LARGEST)
            tl.store(pointers(slot, sample, at, row, first, VECTOR), codes, mask=mask)
            tl.store(scale_address(scale, sample, at, row), new_scale)
            stored = tl.where(mask, widened(codes) * new_scale, 0.0)
            if compared:
                old = tl.zeros((GROUPS, VECTOR), tl.float32)
                for i in tl.static_range(len(previous)):
                    term = load_scaled(
                        previous[i], previous_scales[i], sample, at, row, first, mask, VECTOR
                    )
                    old = add_term(old, coefficients, term, i)
                if SLOT_HOLDS == "previous":
                    term = tl.where(mask, widened(held) * held_scale, 0.0)
                    old = add_term(old, coefficients, term, len(previous))
                sums = add_distance(sums, old, stored, METRIC)
            if RING > 0:
                sums = add_motion(sums, stored, recent, frame, frames, STRIDES)
                recent = (stored,) + recent[:-1]
    out = partials + (sample * tl.num_programs(0) + tl.program_id(0)) * len(sums)
    store_sums(out, sums, METRIC)


@triton.jit
def quantize(new, dtype: tl.constexpr, LARGEST: tl.constexpr):
    """Return the codes and the scale of a token; zeros and infinity if it is not finite."""
    # Magnitudes have the same order as integers, with NaN as the largest.
    peak = tl.max(new.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    is_finite = peak < 0x7F800000
    maximum = tl.maximum(peak.to(tl.float32, bitcast=True), 7.888609052210118e-31)  # 2^-100
    factor = tl.div_rn(LARGEST, maximum)
    codes = narrowed(tl.where(is_finite, new * factor, 0.0), dtype)
    return codes, tl.where(is_finite, maximum * (1 / LARGEST), float("inf"))


@triton.jit
def load_scaled(view, scale, outer, middle, row, first, mask, VECTOR: tl.constexpr):
    """Return a stored residual times its scale, 0 outside of the mask."""
    value = tl.load(pointers(view, outer, middle, row, first, VECTOR), mask=mask, other=0)
    value = widened(value)
    if scale is not None:
        factor = tl.load(scale_address(scale, outer, middle, row))
        value = tl.where(mask, value * factor, 0.0)
    return value


@triton.jit
def scale_address(scale, outer, middle, row):
    """Return the address of the scale of a token."""
    return scale.pointer + (outer * scale.outer + middle * scale.middle + row * scale.row)
