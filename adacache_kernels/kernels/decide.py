"""The kernel of `decide`: partial sums to distance, motion score, rate and next computed step.

One program computes in float64, like the CPU, so that both make the same decision.
"""

import triton
import triton.language as tl

from . import state_fields as fields

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
    """Write the fields of `State`, and a flag of `Flag`, after a computed step.

    `sums` is `[locations, rows, videos, parts, COLUMNS]`, with the guidance rows of each video and
    the partial sums of each row. `ENTRIES` is a power of two of at least `entries`, the size of the
    codebook `[2, entries]`. A `clock` replaces step, has_previous and in_window; `motions`
    `[videos]` replaces the previous motion score in the state.
    """
    tl.assume(rows > 0)
    tl.assume(videos > 0)
    tl.assume(parts > 0)
    tl.assume(locations > 0)
    zero, one = tl.full((), 0.0, tl.float64), tl.full((), 1.0, tl.float64)
    nan = tl.full((), float("nan"), tl.float64)
    previous_step = tl.load(state + fields.State.STEP)
    if clock is not None:
        step = tl.load(clock + fields.StepState.STEP).to(tl.int32)
        has_previous = tl.load(clock + fields.StepState.HAS_PREVIOUS).to(tl.int32)
        in_window = tl.load(clock + fields.StepState.IN_WINDOW).to(tl.int32)
    raw, distance, score, flags = nan, nan, one, fields.Flag.NO_PREVIOUS * 1.0
    if has_previous != 0:
        gap = step.to(tl.float64) - previous_step.to(tl.float64)
        raw, distance, score = zero, zero, zero
        flags = 0.0
        for video in range(videos):
            own_motion = state + fields.State.PREVIOUS_MOTION
            motion_at = own_motion if motions is None else motions + video
            own_raw, own_distance, own_score, is_undefined = outcome_of(
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
            bad = tl.where(is_finite(own_distance), 0.0, fields.Flag.NOT_FINITE * 1.0)
            own_flags = tl.where(is_undefined, fields.Flag.ZERO_DENOMINATOR * 1.0, bad)
            flags = tl.maximum(flags, own_flags)
            if MEAN:
                raw += own_raw
                distance += own_distance
                score += own_score
            elif video == 0 or replaces(own_distance, distance):
                raw, distance, score = own_raw, own_distance, own_score
        if MEAN:
            raw, distance, score = raw / videos, distance / videos, score / videos
    rate = 1.0
    if flags == 0:
        rate = rate_of(distance.to(tl.float32), codebook, entries, ENTRIES)
    now = step.to(tl.float32)
    tl.debug_barrier()  # One thread writes the fields that all threads read above.
    number = sequence.to(tl.float32)
    tl.store(state + fields.State.SEQUENCE, number)
    tl.store(state + fields.State.STEP, now)
    tl.store(state + fields.State.DISTANCE, distance.to(tl.float32))
    tl.store(state + fields.State.MOTION, score.to(tl.float32))
    tl.store(state + fields.State.RATE, rate)
    tl.store(state + fields.State.NEXT_STEP, now + rate)
    tl.store(state + fields.State.FLAGS, flags)
    tl.store(state + fields.State.RAW_DISTANCE, raw.to(tl.float32))
    tl.store(state + fields.State.SEQUENCE_AGAIN, number)


@triton.jit
def outcome_of(
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
    """Return raw distance, distance, score and "has no distance" of one video.

    With `APPLY_MOREG`, write the score to `motion_at`, where the next decision reads it.
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
        tl.debug_barrier()  # One thread writes the score that all threads read above.
        if is_finite(score):
            tl.store(motion_at, score.to(tl.float32))
    if gap <= 0:
        raw = nan
    if is_undefined:
        distance = nan
    return raw, distance, score, is_undefined


@triton.jit
def replaces(distance, largest):
    """Return True if the video of this distance decides instead of an earlier one."""
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
    """Return the mean over the locations, before the division by the gap, and "is undefined"."""
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
    """Return the mean over the frame strides, and "is undefined"."""
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
    """Return a column summed over the rows of a video, `videos` apart, and their partial sums."""
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
    """Return the quotient, NaN if it is undefined, and "is undefined"."""
    is_zero = denominator == 0
    return tl.where(is_zero, float("nan"), numerator / denominator), is_zero


@triton.jit
def is_finite(value):
    """Return True if the value is finite as float32, the dtype of the state."""
    return tl.abs(value.to(tl.float32)) < float("inf")


@triton.jit
def power(base, EXPONENT: tl.constexpr):
    """Return `base ** EXPONENT` by repeated squaring; the exponent is a whole number, -64 to 64."""
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
    """Return the rate of the first threshold above the distance, or the last rate."""
    entry = tl.arange(0, ENTRIES)
    threshold = tl.load(codebook + entry, mask=entry < entries, other=float("inf"))
    passed = tl.sum((distance >= threshold).to(tl.int32))
    return tl.load(codebook + entries + tl.minimum(passed, entries - 1))
