"""Partial sums -> distance, motion score, rate and next computed step, in one program.

In float64, as on the CPU, so that both decide alike; it is a handful of operations.
"""

import triton
import triton.language as tl

SIZES = ("samples", "locations", "entries", "sequence", "step", "has_previous", "in_window")


@triton.jit(do_not_specialize=SIZES)
def decide_kernel(
    state,
    sums,
    codebook,
    clock,
    samples,
    locations,
    entries,
    sequence,
    step,
    has_previous,
    in_window,
    METRIC: tl.constexpr,
    APPLY_MOREG: tl.constexpr,
    MOREG_A: tl.constexpr,
    MOREG_B: tl.constexpr,
    MOREG_D: tl.constexpr,
    MOGRAD_MUL: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """The fields of `ops.State` and flags of `ops.Flag` after a computed step.

    `sums` is `[locations, samples, COLUMNS]`: the samples are those of the batch, times the partial
    sums of each. `ENTRIES` is a power of two that is not below the codebook's `entries`. A `clock`
    holds step, has_previous and in_window in place of the arguments.
    """
    tl.assume(samples > 0)
    tl.assume(locations > 0)
    one = tl.full((), 1.0, tl.float64)
    nan = tl.full((), float("nan"), tl.float64)
    previous_step, previous_motion = tl.load(state + 1), tl.load(state + 6)
    if clock is not None:
        step = tl.load(clock).to(tl.int32)
        has_previous, in_window = tl.load(clock + 1).to(tl.int32), tl.load(clock + 2).to(tl.int32)
    raw, distance, score, is_undefined = nan, nan, one, False
    if has_previous != 0:
        gap = step.to(tl.float64) - previous_step.to(tl.float64)
        raw, is_undefined = mean_distance(sums, samples, locations, METRIC, COLUMNS, BLOCK)
        raw /= gap
        is_undefined |= gap <= 0
        distance = raw
        if APPLY_MOREG:
            if in_window != 0:
                last = sums + (locations - 1) * samples * COLUMNS
                motion, is_zero = mean_motion(last, samples, COLUMNS, BLOCK)
                score = power(motion / MOREG_A, MOREG_B) / MOREG_D
                is_undefined |= is_zero
            gradient = MOGRAD_MUL * (score - previous_motion.to(tl.float64)) / gap
            distance = raw * (score + tl.abs(gradient))
            if is_finite(score):
                previous_motion = score.to(tl.float32)
        if gap <= 0:
            raw = nan
        if is_undefined:
            distance = nan
    flags = 1.0
    if has_previous != 0:
        flags = tl.where(is_undefined, 4.0, tl.where(is_finite(distance), 0.0, 2.0))
    rate = 1.0
    if flags == 0:
        rate = rate_of(distance.to(tl.float32), codebook, entries, ENTRIES)
    now = step.to(tl.float32)
    tl.debug_barrier()  # One thread writes what all of them have read.
    number = sequence.to(tl.float32)
    tl.store(state + 0, number)
    tl.store(state + 1, now)
    tl.store(state + 2, distance.to(tl.float32))
    tl.store(state + 3, score.to(tl.float32))
    tl.store(state + 4, rate)
    tl.store(state + 5, now + rate)
    tl.store(state + 6, previous_motion)
    tl.store(state + 7, flags)
    tl.store(state + 8, raw.to(tl.float32))
    tl.store(state + 9, number)


@triton.jit
def mean_distance(
    sums, samples, locations, METRIC: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr
):
    """Over the locations, before the division by the gap; and whether one is undefined."""
    result = tl.full((), 0.0, tl.float64)
    is_undefined = False
    for location in range(locations):
        at = sums + location * samples * COLUMNS
        first, second = total(at, samples, COLUMNS, BLOCK), total(at + 1, samples, COLUMNS, BLOCK)
        if METRIC == "cosine":
            third = total(at + 2, samples, COLUMNS, BLOCK)
            similarity, is_zero = ratio(first, tl.sqrt(second * third))
            result += 1.0 - similarity
        elif METRIC == "l2":
            distance, is_zero = ratio(tl.sqrt(first), tl.sqrt(second))
            result += distance
        else:
            distance, is_zero = ratio(first, second)
            result += distance
        is_undefined |= is_zero
    return result / locations, is_undefined


@triton.jit
def mean_motion(sums, samples, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Over the frame strides; and whether one is undefined."""
    result = tl.full((), 0.0, tl.float64)
    is_undefined = False
    for column in tl.static_range(3, COLUMNS, 2):
        change = total(sums + column, samples, COLUMNS, BLOCK)
        motion, is_zero = ratio(change, total(sums + column + 1, samples, COLUMNS, BLOCK))
        result += motion
        is_undefined |= is_zero
    return result / ((COLUMNS - 3) // 2), is_undefined


@triton.jit
def total(column, samples, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """A column summed over the samples."""
    result = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, samples, BLOCK):
        sample = start + tl.arange(0, BLOCK)
        value = tl.load(column + sample * COLUMNS, mask=sample < samples, other=0.0)
        result += value.to(tl.float64)
    return tl.sum(result)


@triton.jit
def ratio(numerator, denominator):
    """NaN if it is undefined; and whether it is."""
    is_zero = denominator == 0
    return tl.where(is_zero, float("nan"), numerator / denominator), is_zero


@triton.jit
def is_finite(value):
    """As the float32 that is recorded."""
    return tl.abs(value.to(tl.float32)) < float("inf")


@triton.jit
def power(base, EXPONENT: tl.constexpr):
    """`base ** EXPONENT` by repeated squaring, a whole number of at most 64 either way."""
    magnitude: tl.constexpr = EXPONENT if EXPONENT >= 0 else -EXPONENT
    result = tl.full((), 1.0, tl.float64)
    for bit in tl.static_range(7):
        if (magnitude >> bit) % 2 == 1:
            result *= base
        base *= base
    if EXPONENT < 0:
        result = 1.0 / result
    return result


@triton.jit
def rate_of(distance, codebook, entries, ENTRIES: tl.constexpr):
    """That of the first threshold above the distance, else the last."""
    entry = tl.arange(0, ENTRIES)
    threshold = tl.load(codebook + entry, mask=entry < entries, other=float("inf"))
    passed = tl.sum((distance >= threshold).to(tl.int32))
    return tl.load(codebook + entries + tl.minimum(passed, entries - 1))
