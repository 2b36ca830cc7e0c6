"""Floating-point arithmetic that numpy lacks: bf16, fp8, fused multiply-add, flush to zero.

Every function rounds once, to nearest even, like the hardware. Fused operations first round to odd.
A value that is rounded to odd with at least two spare bits can be rounded again to the narrower
format, with the result of a single rounding.
"""

from fractions import Fraction

import numpy as np

from .ptx_types import Array

SMALLEST_NORMAL_F32 = np.float32(2.0**-126)
BF16_NAN = np.uint16(0x7FFF)


def bf16_to_f32(bits: Array) -> Array:
    """Return the values of bf16 bit patterns."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(values: Array) -> Array:
    """Return the bit patterns of the nearest bf16 values; every NaN becomes 0x7FFF."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), BF16_NAN, rounded)


def f32_to_bf16_towards_zero(values: Array) -> Array:
    """Return the bit patterns of the values without their low half."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return np.where(np.isnan(values), BF16_NAN, (bits >> np.uint32(16)).astype(np.uint16))


def f64_to_bf16(values: Array) -> Array:
    """Return the bit patterns of the nearest bf16 values, rounded once."""
    return f32_to_bf16(_f64_to_odd_f32(np.asarray(values, np.float64)))


def _f64_to_odd_f32(values: Array) -> Array:
    nearest = values.astype(np.float32)
    back = nearest.astype(np.float64)
    bits = nearest.view(np.uint32)
    inexact = (back != values) & np.isfinite(back) & np.isfinite(values)
    even = (bits & np.uint32(1)) == 0
    outwards = np.abs(values) > np.abs(back)
    neighbour = np.where(outwards, bits + np.uint32(1), bits - np.uint32(1))
    return np.where(inexact & even, neighbour, bits).view(np.float32)


def flush(values: Array) -> Array:
    """Replace subnormal fp32 values by zeros of the same sign (`.ftz`)."""
    zero = np.copysign(np.float32(0), values)
    return np.where(np.abs(values) < SMALLEST_NORMAL_F32, zero, values)


def fma32(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c in fp32 with one rounding."""
    # The product of two fp32 values is exact in fp64.
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    return _sum_to_odd(product, np.asarray(c, np.float64)).astype(np.float32)


def fma16(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c in fp16 with one rounding."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    return _sum_to_odd(product, np.asarray(c, np.float64)).astype(np.float16)


def fma_bf16(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c for bf16 bit patterns with one rounding."""
    product = bf16_to_f32(a).astype(np.float64) * bf16_to_f32(b).astype(np.float64)
    return f64_to_bf16(_sum_to_odd(product, bf16_to_f32(c).astype(np.float64)))


def fma64(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c in fp64 with one rounding (Boldo and Melquiond, 2008)."""
    a, b, c = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (a, b, c)))
    plain = a * b + c
    high, low = _two_product(a, b)
    inner, inner_error = _two_sum(c, low)
    outer, outer_error = _two_sum(high, inner)
    fused = outer + _sum_to_odd(inner_error, outer_error)

    special = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (a == 0) | (b == 0)
    result = np.where(special, plain, fused)
    extreme = ~special & ~(_moderate(a, 450) & _moderate(b, 450) & (_moderate(c, 900) | (c == 0)))
    if not extreme.any():
        return result
    result = np.array(result, ndmin=1)
    for index in np.flatnonzero(extreme):
        result[index] = _fma64_exact(*(float(np.ravel(x)[index]) for x in (a, b, c)))
    return result.reshape(a.shape)


def _moderate(x: Array, exponent: int) -> Array:
    magnitude = np.abs(x)
    return (magnitude >= 2.0**-exponent) & (magnitude <= 2.0**exponent)


def _fma64_exact(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    try:
        return float(exact) if float(exact) != 0 else (0.0 if exact > 0 else -0.0)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


def _split(x: Array) -> tuple[Array, Array]:
    scaled = x * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - x)
    return high, x - high


def _sum_to_odd(a: Array, b: Array) -> Array:
    total, error = _two_sum(a, b)
    inexact = (error != 0) & np.isfinite(total)
    if not inexact.any():
        return total
    bits = np.asarray(total).view(np.int64)
    even = (bits & 1) == 0
    outwards = (error > 0) == (total > 0)
    neighbour = bits + np.where(outwards, 1, -1)
    return np.where(inexact & even, neighbour, bits).view(np.float64)


def minimum(a: Array, b: Array) -> Array:
    """Return the smaller value; a number wins against NaN, and -0 is below +0."""
    smaller = np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.minimum(a, b)))
    zeros = (a == 0) & (b == 0)
    signed = np.where(np.signbit(a), a, b)
    return np.where(zeros, signed, smaller)


def maximum(a: Array, b: Array) -> Array:
    """Return the larger value; a number wins against NaN, and +0 is above -0."""
    larger = np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.maximum(a, b)))
    zeros = (a == 0) & (b == 0)
    signed = np.where(np.signbit(a), b, a)
    return np.where(zeros, signed, larger)


class Float8:
    """An 8-bit format, as tables of its positive values and their midpoints."""

    def __init__(self, exponent_bits: int, finite: int, nan_codes: tuple[int, ...]) -> None:
        """Make the tables; `finite` counts the positive finite codes, including zero."""
        mantissa_bits = 7 - exponent_bits
        self._values = _positive_values(exponent_bits, mantissa_bits, finite)
        self._midpoints = (self._values[1:] + self._values[:-1]) / 2
        decoded = np.full(128, np.inf)
        decoded[:finite] = self._values
        decoded[list(nan_codes)] = np.nan
        self._decoded = np.concatenate([decoded, -decoded]).astype(np.float32)

    def decode(self, codes: Array) -> Array:
        """Return the fp32 values of 8-bit codes."""
        return self._decoded[codes]

    def encode(self, values: Array) -> Array:
        """Return the codes of the nearest finite values (`.satfinite`); a NaN becomes 0x7F."""
        magnitude = np.abs(np.asarray(values, np.float64))
        code = np.searchsorted(self._midpoints, magnitude, side="left")
        within = np.minimum(code, len(self._midpoints) - 1)
        tie = (code < len(self._midpoints)) & (self._midpoints[within] == magnitude)
        code = code + (tie & (code % 2 == 1))
        signed = code | np.where(np.signbit(values), 0x80, 0)
        return np.where(np.isnan(values), 0x7F, signed).astype(np.uint8)


def _positive_values(exponent_bits: int, mantissa_bits: int, count: int) -> Array:
    codes = np.arange(count)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / 2.0**mantissa_bits
    exponent = codes >> mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    subnormal = mantissa * 2.0 ** (1 - bias)
    return np.where(exponent == 0, subnormal, (1 + mantissa) * 2.0 ** (exponent - bias))


E4M3 = Float8(exponent_bits=4, finite=127, nan_codes=(127,))
E5M2 = Float8(exponent_bits=5, finite=124, nan_codes=(125, 126, 127))
