"""Partial sums -> distance, motion score, rate and next computed step, in one program.

In float64, as on the CPU, so that both decide alike; it is a handful of operations.
"""

import triton
import triton.language as tl

SIZES = (
    "rows",
    "videos",
    "parts",
    "locations",
    "entries",
    "sequence",
    "step",
    "has_previous",
    "in_window",
)


@triton.jit(do_not_specialize=SIZES)
def decide_kernel(
    state,
    sums,
    codebook,
    clock,
    motions,
    rows,
    videos,
    parts,
    locations,
    entries,
    sequence,
    step,
    has_previous,
    in_window,
    METRIC: tl.constexpr,
    MEAN: tl.constexpr,
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

    `sums` is `[locations, rows, videos, parts, COLUMNS]`: the rows of guidance of each video, times
    the partial sums of each. `ENTRIES` is a power of two that is not below the codebook's
    `entries`. A `clock` holds step, has_previous and in_window in place of the arguments, and
    `motions` the videos' previous motion scores in place of the state.
    """
    tl.assume(rows > 0)
    tl.assume(videos > 0)
    tl.assume(parts > 0)
    tl.assume(locations > 0)
    zero, one = tl.full((), 0.0, tl.float64), tl.full((), 1.0, tl.float64)
    nan = tl.full((), float("nan"), tl.float64)
    previous_step = tl.load(state + 1)
    if clock is not None:
        step = tl.load(clock).to(tl.int32)
        has_previous, in_window = tl.load(clock + 1).to(tl.int32), tl.load(clock + 2).to(tl.int32)
    raw, distance, score, flags = nan, nan, one, 1.0
    if has_previous != 0:
        gap = step.to(tl.float64) - previous_step.to(tl.float64)
        raw, distance, score = zero, zero, zero
        flags = 0.0
        for video in range(videos):
            motion_at = state + 6 if motions is None else motions + video
            own_raw, own_distance, own_score, is_undefined = compared(
                sums + video * parts * COLUMNS,
                motion_at,
                gap,
                rows,
                videos,
                parts,
                locations,
                in_window,
                METRIC,
                APPLY_MOREG,
                MOREG_A,
                MOREG_B,
                MOREG_D,
                MOGRAD_MUL,
                COLUMNS,
                BLOCK,
            )
            own_flags = tl.where(is_undefined, 4.0, tl.where(is_finite(own_distance), 0.0, 2.0))
            flags = tl.maximum(flags, own_flags)
            if MEAN:
                raw += own_raw
                distance += own_distance
                score += own_score
            elif video == 0 or decides(own_distance, distance):
                raw, distance, score = own_raw, own_distance, own_score
        if MEAN:
            raw, distance, score = raw / videos, distance / videos, score / videos
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
    tl.store(state + 7, flags)
    tl.store(state + 8, raw.to(tl.float32))
    tl.store(state + 9, number)


@triton.jit
def compared(
    sums,
    motion_at,
    gap,
    rows,
    videos,
    parts,
    locations,
    in_window,
    METRIC: tl.constexpr,
    APPLY_MOREG: tl.constexpr,
    MOREG_A: tl.constexpr,
    MOREG_B: tl.constexpr,
    MOREG_D: tl.constexpr,
    MOGRAD_MUL: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of one video: its distance without and with motion, its score, and whether it has none.

    The score is written to `motion_at`, for the next one to be compared with.
    """
    nan = tl.full((), float("nan"), tl.float64)
    raw, is_undefined = mean_distance(sums, rows, videos, parts, locations, METRIC, COLUMNS, BLOCK)
    raw /= gap
    is_undefined |= gap <= 0
    distance, score = raw, tl.full((), 1.0, tl.float64)
    if APPLY_MOREG:
        previous = tl.load(motion_at).to(tl.float64)
        if in_window != 0:
            last = sums + (locations - 1) * rows * videos * parts * COLUMNS
            motion, is_zero = mean_motion(last, rows, videos, parts, COLUMNS, BLOCK)
            score = power(motion / MOREG_A, MOREG_B) / MOREG_D
            is_undefined |= is_zero
        distance = raw * (score + tl.abs(MOGRAD_MUL * (score - previous) / gap))
        tl.debug_barrier()  # One thread writes what all of them have read.
        if is_finite(score):
            tl.store(motion_at, score.to(tl.float32))
    if gap <= 0:
        raw = nan
    if is_undefined:
        distance = nan
    return raw, distance, score, is_undefined


@triton.jit
def decides(distance, largest):
    """Whether the video of that distance decides, and not an earlier one."""
    is_larger = (distance > largest) | (not is_finite(distance))
    return is_finite(largest) & is_larger


@triton.jit
def mean_distance(
    sums,
    rows,
    videos,
    parts,
    locations,
    METRIC: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Over the locations, before the division by the gap; and whether one is undefined."""
    result = tl.full((), 0.0, tl.float64)
    is_undefined = False
    for location in range(locations):
        at = sums + location * rows * videos * parts * COLUMNS
        first = total(at, rows, videos, parts, COLUMNS, BLOCK)
        second = total(at + 1, rows, videos, parts, COLUMNS, BLOCK)
        if METRIC == "cosine":
            third = total(at + 2, rows, videos, parts, COLUMNS, BLOCK)
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
def mean_motion(sums, rows, videos, parts, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Over the frame strides; and whether one is undefined."""
    result = tl.full((), 0.0, tl.float64)
    is_undefined = False
    for column in tl.static_range(3, COLUMNS, 2):
        change = total(sums + column, rows, videos, parts, COLUMNS, BLOCK)
        size = total(sums + column + 1, rows, videos, parts, COLUMNS, BLOCK)
        motion, is_zero = ratio(change, size)
        result += motion
        is_undefined |= is_zero
    return result / ((COLUMNS - 3) // 2), is_undefined


@triton.jit
def total(column, rows, videos, parts, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """A column summed over the rows of a video, which lie `videos` apart, and their parts."""
    result = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, rows * parts, BLOCK):
        sample = start + tl.arange(0, BLOCK)
        skipped = sample // parts * (videos - 1) * parts
        at = column + (sample + skipped) * COLUMNS
        value = tl.load(at, mask=sample < rows * parts, other=0.0)
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
