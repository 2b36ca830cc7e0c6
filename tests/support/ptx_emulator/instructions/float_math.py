"""Floating-point arithmetic. Approximate functions are computed exactly and rounded."""

from collections.abc import Callable

import numpy as np

from .. import floats
from ..errors import Unsupported
from ..operands import Symbols
from ..parser import Instruction
from ..ptx_types import FLOAT_TYPES, PACKED_FLOAT_TYPES, Array
from .common import Execute, allow, pointwise, type_of, types_of

Function = Callable[..., Array]

ROUNDED = frozenset({"rn", "ftz", "sat"})
APPROXIMATE = frozenset({"rn", "approx", "full", "ftz"})

MODIFIERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("add", "sub", "mul", "fma", "mad"), ROUNDED),
    **dict.fromkeys(
        ("div", "sqrt", "rcp", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"), APPROXIMATE
    ),
    **dict.fromkeys(("min", "max"), frozenset({"ftz", "NaN"})),
    **dict.fromkeys(("abs", "neg"), frozenset({"ftz"})),
    "copysign": frozenset(),
}
OPERANDS = {"fma": 3, "mad": 3} | dict.fromkeys(
    ("add", "sub", "mul", "div", "min", "max", "copysign"), 2
)
ONLY_APPROXIMATE = frozenset({"rsqrt", "ex2", "lg2", "sin", "cos", "tanh"})


def _through_f64(function: Function) -> Function:
    """Evaluate in fp64 and round: closer than the hardware's approximation."""
    return lambda x: function(np.asarray(x, np.float64)).astype(x.dtype)


FUNCTIONS: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": floats.minimum,
    "max": floats.maximum,
    "abs": np.abs,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "copysign": lambda sign, magnitude: np.copysign(magnitude, sign),
    "rcp": lambda x: np.divide(x.dtype.type(1), x),
    "rsqrt": _through_f64(lambda x: 1 / np.sqrt(x)),
    "ex2": _through_f64(np.exp2),
    "lg2": _through_f64(np.log2),
    "sin": _through_f64(np.sin),
    "cos": _through_f64(np.cos),
    "tanh": _through_f64(np.tanh),
}
FMA: dict[str, Function] = {"f16": floats.fma16, "f32": floats.fma32, "f64": floats.fma64}
HALF_OF = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}


def handles(instruction: Instruction) -> bool:
    """Return True for arithmetic on floating-point values."""
    types = types_of(instruction)
    known = FLOAT_TYPES | PACKED_FLOAT_TYPES
    return instruction.opcode in MODIFIERS and bool(types) and types[-1] in known


def build(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile one instruction."""
    allow(instruction, MODIFIERS[instruction.opcode])
    types = types_of(instruction)
    if len(types) == 2:
        return _mixed(instruction, symbols, types)
    ptx_type = type_of(instruction)
    if ptx_type == "f64" and instruction.has("approx", "full"):
        if instruction.opcode not in ("rcp", "rsqrt"):
            raise Unsupported("approximate f64")
        function = _upper_half(FUNCTIONS[instruction.opcode])
        return pointwise(instruction, symbols, function, ["f64"], "f64")
    if ptx_type == "f64" and instruction.opcode in ONLY_APPROXIMATE:
        raise Unsupported(f"{instruction.opcode} for f64")
    function = _function(instruction, ptx_type)
    count = OPERANDS.get(instruction.opcode, 1)
    return pointwise(instruction, symbols, function, [ptx_type] * count, ptx_type)


def _function(instruction: Instruction, ptx_type: str) -> Function:
    if ptx_type in PACKED_FLOAT_TYPES:
        return _on_halves(_function(instruction, HALF_OF[ptx_type]), ptx_type)
    if ptx_type == "bf16":
        return _bf16_function(instruction)
    function = _plain_function(instruction, ptx_type)
    if instruction.has("sat"):
        function = _saturated(function)
    if instruction.has("ftz") and ptx_type == "f32":
        return _flushed(function)
    return function


def _plain_function(instruction: Instruction, ptx_type: str) -> Function:
    if instruction.opcode in ("fma", "mad"):
        return FMA[ptx_type]
    if instruction.has("NaN"):
        return _propagating_nan(FUNCTIONS[instruction.opcode])
    return FUNCTIONS[instruction.opcode]


def _bf16_function(instruction: Instruction) -> Function:
    if instruction.opcode == "abs":
        return lambda bits: bits & np.uint16(0x7FFF)
    if instruction.opcode == "neg":
        return lambda bits: bits ^ np.uint16(0x8000)
    if instruction.opcode in ("fma", "mad"):
        return floats.fma_bf16
    # Rounding the fp32 result again is harmless: fp32 has more than twice the bits of bf16.
    function = _plain_function(instruction, "f32")
    return lambda *bits: floats.f32_to_bf16(function(*map(floats.bf16_to_f32, bits)))


def _propagating_nan(function: Function) -> Function:
    def propagate(a: Array, b: Array) -> Array:
        return np.where(np.isnan(a) | np.isnan(b), np.asarray(a).dtype.type(np.nan), function(a, b))

    return propagate


def _saturated(function: Function) -> Function:
    def saturated(*values: Array) -> Array:
        result = function(*values)
        clipped = np.clip(result, result.dtype.type(0), result.dtype.type(1))
        return np.where(np.isnan(result), result.dtype.type(0), clipped)

    return saturated


def _flushed(function: Function) -> Function:
    return lambda *values: floats.flush(function(*map(floats.flush, values)))


def _upper_half(function: Function) -> Function:
    """Compile an fp64 approximation, which uses the upper halves of its operand and result."""
    upper = np.uint64(0xFFFFFFFF00000000)

    def approximate(x: Array) -> Array:
        result = function((np.asarray(x).view(np.uint64) & upper).view(np.float64))
        return (np.asarray(result).view(np.uint64) & upper).view(np.float64)

    return approximate


def _on_halves(function: Function, ptx_type: str) -> Function:
    whole = np.uint64 if ptx_type == "f32x2" else np.uint32
    half = {"f16x2": np.float16, "bf16x2": np.uint16, "f32x2": np.float32}[ptx_type]

    def both(*values: Array) -> Array:
        halves = [np.array(value, ndmin=1).view(half) for value in values]
        size = max(part.size for part in halves)
        halves = [part if part.size == size else np.tile(part, size // 2) for part in halves]
        return np.ascontiguousarray(function(*halves)).astype(half, copy=False).view(whole)

    return both


def _mixed(instruction: Instruction, symbols: Symbols, types: list[str]) -> Execute:
    """Compile add, sub and fma of fp32 with narrower factors (PTX 8.6 and later)."""
    wide, narrow = types
    if wide != "f32" or narrow not in ("bf16", "f16") or instruction.has("ftz", "sat"):
        raise Unsupported(f"mixed types {types}")
    widen: Function = floats.bf16_to_f32 if narrow == "bf16" else lambda x: x.astype(np.float32)
    match instruction.opcode:
        case "add":
            return pointwise(
                instruction, symbols, lambda a, b: widen(a) + b, [narrow, "f32"], "f32"
            )
        case "sub":
            return pointwise(
                instruction, symbols, lambda a, b: widen(a) - b, [narrow, "f32"], "f32"
            )
        case "fma":
            return pointwise(
                instruction,
                symbols,
                lambda a, b, c: floats.fma32(widen(a), widen(b), c),
                [narrow, narrow, "f32"],
                "f32",
            )
    raise Unsupported(f"mixed types {types}")
