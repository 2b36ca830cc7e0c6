"""Conversions between types (cvt)."""

from collections.abc import Callable

import numpy as np

from .. import floats
from ..errors import Unsupported
from ..operands import Symbols
from ..parser import Instruction
from ..ptx_types import FLOAT_TYPES, FP8_TYPES, INTEGER_TYPES, WIDTH, Array, dtype_of
from .common import Builder, Execute, allow, pointwise, types_of

Function = Callable[..., Array]

TO_INTEGRAL: dict[str, Function] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
FORMATS = {"e4m3x2": floats.E4M3, "e5m2x2": floats.E5M2}


def _cvt(instruction: Instruction, symbols: Symbols) -> Execute:
    types = types_of(instruction)
    if len(types) != 2:
        raise Unsupported(f"types {types}")
    target, source = types
    if target in FP8_TYPES:
        return _to_fp8(instruction, symbols, target, source)
    if source in FP8_TYPES:
        return _from_fp8(instruction, symbols, target, source)
    if target in ("bf16x2", "f16x2"):
        return _to_pair(instruction, symbols, target, source)
    function = _scalar(instruction, target, source)
    return pointwise(instruction, symbols, function, [source], target)


def _scalar(instruction: Instruction, target: str, source: str) -> Function:
    if source in FLOAT_TYPES and target in FLOAT_TYPES:
        return _float_to_float(instruction, target, source)
    if source in FLOAT_TYPES and target in INTEGER_TYPES:
        return _float_to_integer(instruction, target, source)
    if source in INTEGER_TYPES and target in FLOAT_TYPES:
        return _integer_to_float(instruction, target, source)
    if source in INTEGER_TYPES and target in INTEGER_TYPES:
        return _integer_to_integer(instruction, target)
    raise Unsupported(f"types .{target}.{source}")


def _float_to_float(instruction: Instruction, target: str, source: str) -> Function:
    allow(instruction, ("rn", "rz", "ftz", "sat", *TO_INTEGRAL))
    if instruction.has("rz") and (target, source) != ("bf16", "f32"):
        raise Unsupported("modifier .rz")
    integral = _integral(instruction)
    narrow = _narrowing(instruction, target, source)

    def convert(value: Array) -> Array:
        value = _widened(value, source, instruction.has("ftz"))
        if integral is not None:
            value = integral(value)
        if instruction.has("sat"):
            clipped = np.clip(value, value.dtype.type(0), value.dtype.type(1))
            value = np.where(np.isnan(value), value.dtype.type(0), clipped)
        return narrow(value)

    return convert


def _narrowing(instruction: Instruction, target: str, source: str) -> Function:
    if target == "bf16" and source == "f64":
        return floats.f64_to_bf16
    if target == "bf16" and instruction.has("rz"):
        return floats.f32_to_bf16_towards_zero
    if target == "bf16":
        return lambda value: floats.f32_to_bf16(value.astype(np.float32))
    dtype = dtype_of(target)
    if target == "f32" and instruction.has("ftz"):
        return lambda value: floats.flush(value.astype(dtype))
    return lambda value: value.astype(dtype)


def _float_to_integer(instruction: Instruction, target: str, source: str) -> Function:
    allow(instruction, ("ftz", "sat", *TO_INTEGRAL))
    integral = _integral(instruction)
    if integral is None:
        raise Unsupported("no rounding mode")
    limits, dtype = np.iinfo(dtype_of(target)), dtype_of(target)

    def convert(value: Array) -> Array:
        value = _widened(value, source, instruction.has("ftz")).astype(np.float64)
        rounded = integral(np.where(np.isnan(value), 0.0, value))
        above, below = rounded >= float(limits.max), rounded <= float(limits.min)
        inside = np.where(above | below, 0.0, rounded).astype(dtype)
        return np.where(above, dtype.type(limits.max), np.where(below, limits.min, inside)).astype(
            dtype
        )

    return convert


def _integer_to_float(instruction: Instruction, target: str, source: str) -> Function:
    allow(instruction, ("rn",))
    if target != "bf16":
        dtype = dtype_of(target)
        if target == "f16" and WIDTH[source] > 16:
            return lambda value: value.astype(np.float64).astype(dtype)
        return lambda value: value.astype(dtype)
    if WIDTH[source] > 32:
        raise Unsupported("64-bit integers to bf16")
    return lambda value: floats.f64_to_bf16(value.astype(np.float64))


def _integer_to_integer(instruction: Instruction, target: str) -> Function:
    allow(instruction, ("sat",))
    dtype = dtype_of(target)
    if not instruction.has("sat"):
        return lambda value: value.astype(dtype)
    limits = np.iinfo(dtype)

    def saturate(value: Array) -> Array:
        own = np.iinfo(value.dtype)
        low, high = max(limits.min, own.min), min(limits.max, own.max)
        return np.clip(value, value.dtype.type(low), value.dtype.type(high)).astype(dtype)

    return saturate


def _to_pair(instruction: Instruction, symbols: Symbols, target: str, source: str) -> Execute:
    """Compile a conversion of two fp32 values to one register; the first gives the upper half."""
    allow(instruction, ("rn", "rz", "relu"))
    if source != "f32" or (instruction.has("rz") and target == "f16x2"):
        raise Unsupported(f"types .{target}.{source}")
    narrow = _narrowing(instruction, target.removesuffix("x2"), source)

    def half(value: Array) -> Array:
        if instruction.has("relu"):
            value = floats.maximum(value, np.float32(0))
        return narrow(value).view(np.uint16).astype(np.uint32)

    return pointwise(
        instruction,
        symbols,
        lambda upper, lower: (half(upper) << np.uint32(16)) | half(lower),
        ["f32", "f32"],
        target,
    )


def _to_fp8(instruction: Instruction, symbols: Symbols, target: str, source: str) -> Execute:
    allow(instruction, ("rn", "satfinite"))
    if not instruction.has("satfinite"):
        raise Unsupported("fp8 without .satfinite")
    encode = FORMATS[target].encode

    def pair(upper: Array, lower: Array) -> Array:
        return (encode(upper).astype(np.uint16) << np.uint16(8)) | encode(lower)

    if source == "f32":
        return pointwise(instruction, symbols, pair, ["f32", "f32"], target)
    if source not in ("f16x2", "bf16x2"):
        raise Unsupported(f"types .{target}.{source}")

    def packed(bits: Array) -> Array:
        upper, lower = (bits >> np.uint32(16)).astype(np.uint16), bits.astype(np.uint16)
        return pair(_half_value(upper, source), _half_value(lower, source))

    return pointwise(instruction, symbols, packed, ["b32"], target)


def _half_value(bits: Array, pair_type: str) -> Array:
    if pair_type == "bf16x2":
        return floats.bf16_to_f32(bits)
    return bits.view(np.float16).astype(np.float32)


def _from_fp8(instruction: Instruction, symbols: Symbols, target: str, source: str) -> Execute:
    allow(instruction, ("rn",))
    if target not in ("f16x2", "bf16x2"):
        raise Unsupported(f"types .{target}.{source}")
    decode = FORMATS[source].decode

    def half(codes: Array) -> Array:
        value = decode(codes)
        if target == "bf16x2":
            return floats.f32_to_bf16(value).astype(np.uint32)
        return value.astype(np.float16).view(np.uint16).astype(np.uint32)

    def unpack(bits: Array) -> Array:
        return (half(bits >> np.uint16(8)) << np.uint32(16)) | half(bits & np.uint16(255))

    return pointwise(instruction, symbols, unpack, ["b16"], target)


def _integral(instruction: Instruction) -> Function | None:
    return next((TO_INTEGRAL[m] for m in instruction.modifiers if m in TO_INTEGRAL), None)


def _widened(value: Array, source: str, flush: bool) -> Array:
    if source == "bf16":
        return floats.bf16_to_f32(value)
    if source == "f32" and flush:
        return floats.flush(value)
    return value


BUILDERS: dict[str, Builder] = {"cvt": _cvt}
