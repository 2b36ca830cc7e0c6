"""Integer arithmetic and bitwise logic."""

from collections.abc import Callable

import numpy as np

from ..errors import Unsupported
from ..operands import Symbols
from ..parser import Instruction
from ..ptx_types import INTEGER_TYPES, SIGNED, UNSIGNED, WIDTH, Array, dtype_of
from .common import Execute, allow, pointwise, type_of, types_of

Function = Callable[..., Array]

UNARY: dict[str, Function] = {
    "not": np.invert,
    "neg": lambda x: np.subtract(x.dtype.type(0), x),
    "abs": np.abs,
}
BINARY: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
LOGICAL: dict[str, Function] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
}
OPCODES = frozenset({*UNARY, *BINARY, "mul", "mad", "div", "rem", "shl", "shr"})


def handles(instruction: Instruction) -> bool:
    """Return True for arithmetic or logic on integers or predicates."""
    types = types_of(instruction)
    if instruction.opcode not in OPCODES or not types:
        return False
    return types[-1] in INTEGER_TYPES or (types[-1] == "pred" and instruction.opcode in LOGICAL)


def build(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile one instruction."""
    ptx_type, opcode = type_of(instruction), instruction.opcode
    if opcode in ("mul", "mad"):
        return _multiply(instruction, symbols, ptx_type)
    allow(instruction, ())
    if ptx_type == "pred":
        count = 1 if opcode == "not" else 2
        return pointwise(instruction, symbols, LOGICAL[opcode], ["pred"] * count, "pred")
    if opcode in UNARY:
        return pointwise(instruction, symbols, UNARY[opcode], [ptx_type], ptx_type)
    if opcode in ("shl", "shr"):
        return pointwise(
            instruction, symbols, _shift(opcode, ptx_type), [ptx_type, "u32"], ptx_type
        )
    function = {"div": divide, "rem": remainder}.get(opcode) or BINARY[opcode]
    return pointwise(instruction, symbols, function, [ptx_type] * 2, ptx_type)


def divide(a: Array, b: Array) -> Array:
    """Divide towards zero; all bits of a quotient by zero are set."""
    a, b = np.asarray(a), np.asarray(b)
    zero = b == 0
    divisor = np.where(zero, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        quotient = a // divisor
    else:
        magnitude = _magnitude(a) // _magnitude(divisor)
        unsigned = np.where((a < 0) != (divisor < 0), np.subtract(0, magnitude), magnitude)
        quotient = unsigned.astype(magnitude.dtype).view(a.dtype)
    return np.where(zero, np.invert(a.dtype.type(0)), quotient)


def remainder(a: Array, b: Array) -> Array:
    """Return the remainder of `divide`, with the sign of the dividend."""
    return np.asarray(a - divide(a, b) * b)


def _magnitude(x: Array) -> Array:
    unsigned = UNSIGNED[x.dtype.itemsize * 8]
    return np.where(x < 0, np.subtract(unsigned.type(0), x.view(unsigned)), x.view(unsigned))


def _shift(opcode: str, ptx_type: str) -> Function:
    width = WIDTH[ptx_type]
    signed = dtype_of(ptx_type).kind == "i"

    def shift(x: Array, amount: Array) -> Array:
        too_far = amount >= width
        # numpy leaves shifts by the width or more undefined.
        within = np.minimum(amount, width - 1).astype(x.dtype)
        if opcode == "shr" and signed:
            return x >> within
        shifted = x << within if opcode == "shl" else x >> within
        return np.where(too_far, x.dtype.type(0), shifted)

    return shift


def _multiply(instruction: Instruction, symbols: Symbols, ptx_type: str) -> Execute:
    allow(instruction, ("lo", "hi", "wide"))
    count = 2 if instruction.opcode == "mul" else 3
    if instruction.has("wide"):
        return _multiply_wide(instruction, symbols, ptx_type, count)
    if not instruction.has("lo", "hi"):
        raise Unsupported("a product that is neither .lo nor .hi nor .wide")
    product = _high_half(ptx_type) if instruction.has("hi") else np.multiply
    function = product if count == 2 else lambda a, b, c: product(a, b) + c
    return pointwise(instruction, symbols, function, [ptx_type] * count, ptx_type)


def _multiply_wide(
    instruction: Instruction, symbols: Symbols, ptx_type: str, count: int
) -> Execute:
    wide_type = f"{ptx_type[0]}{2 * WIDTH[ptx_type]}"
    wide = dtype_of(wide_type)

    def product(a: Array, b: Array) -> Array:
        return a.astype(wide) * b.astype(wide)

    function = product if count == 2 else lambda a, b, c: product(a, b) + c
    sources = [ptx_type, ptx_type, wide_type][:count]
    return pointwise(instruction, symbols, function, sources, wide_type)


def _high_half(ptx_type: str) -> Function:
    width = WIDTH[ptx_type]
    if width == 64:
        return _high_half_signed if ptx_type == "s64" else _high_half_unsigned
    narrow = dtype_of(ptx_type)
    wide = (SIGNED if narrow.kind == "i" else UNSIGNED)[64]
    return lambda a, b: ((a.astype(wide) * b.astype(wide)) >> wide.type(width)).astype(narrow)


def _high_half_unsigned(a: Array, b: Array) -> Array:
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)
    other = a_low * b_high + (middle & low)
    return a_high * b_high + (middle >> half) + (other >> half)


def _high_half_signed(a: Array, b: Array) -> Array:
    x, y = a.view(np.uint64), b.view(np.uint64)
    high = _high_half_unsigned(x, y)
    zero = np.uint64(0)
    return (high - np.where(a < 0, y, zero) - np.where(b < 0, x, zero)).view(np.int64)
