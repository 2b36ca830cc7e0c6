"""Conversions between float32 and eight bits, float8 e4m3fn by hand: sm_80 cannot convert it."""

import triton
import triton.language as tl


@triton.jit
def e4m3_to_float(bits):
    """Return the float8 e4m3fn number in each byte, as float32."""
    bits = bits.to(tl.uint16)
    # The exponents are biased by 7 and 15: as a float16 the number is 2^8 times too small.
    half = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).to(tl.float16, bitcast=True)
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)


@triton.jit
def float_to_e4m3(number):
    """Return the e4m3fn byte of each number below 464, rounded to nearest, ties to even."""
    bits = number.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20
    # The last bit of 2^14 has the value of the last bit of a subnormal float8: adding it rounds.
    shifted = magnitude.to(tl.float32, bitcast=True) + 16384.0
    subnormal = shifted.to(tl.int32, bitcast=True) - 0x46800000
    code = tl.where(magnitude < (121 << 23), subnormal, normal - (120 << 3))
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def widened(value):
    """Return stored numbers in float32, before their scale."""
    if value.dtype == tl.uint8:
        value = e4m3_to_float(value)
    return value.to(tl.float32)


@triton.jit
def narrowed(number, dtype: tl.constexpr):
    """Return numbers in the range of the dtype, rounded to nearest, ties to even."""
    if dtype == tl.uint8:
        code = float_to_e4m3(number)
    else:
        # The last bit of 1.5 * 2^23 has the value 1: adding it rounds.
        code = ((number + 12582912.0) - 12582912.0).to(tl.int32).to(tl.int8)
    return code
