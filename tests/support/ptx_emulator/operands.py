"""The operands: functions that read registers and constants, and write registers."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import Unsupported
from .lanes import Lanes
from .parser import vector_elements
from .ptx_types import UNSIGNED, WIDTH, Array, Mask, bits_of, dtype_of

Read: TypeAlias = Callable[[Lanes], Array]
Write: TypeAlias = Callable[[Lanes, Array, Mask], None]

INTEGER = re.compile(r"^-?(0[xX][0-9a-fA-F]+|\d+)U?$")
PREDICATE_CONSTANTS = {"0": False, "1": True, "-1": True}
ADDRESS = re.compile(r"^\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]$")


@dataclass(frozen=True)
class Symbols:
    """The names that operands can refer to."""

    registers: dict[str, int]
    """Width of each register in bits."""
    shared: dict[str, int]
    """Offset of each shared variable."""


def constant(token: str, ptx_type: str) -> Any | None:
    """Return an immediate operand as a numpy scalar; None for any other operand."""
    dtype = dtype_of(ptx_type)
    if token.startswith("0f"):
        return _float_constant(np.array(int(token[2:], 16), np.uint32), np.float32, dtype)
    if token.startswith("0d"):
        return _float_constant(np.array(int(token[2:], 16), np.uint64), np.float64, dtype)
    if not INTEGER.match(token):
        return None
    value = int(token.rstrip("U"), 0)
    if dtype.kind == "f":
        return dtype.type(value)
    width = dtype.itemsize * 8
    return np.array(value & ((1 << width) - 1), UNSIGNED[width]).view(dtype)[()]


def _float_constant(bits: Array, own: type, wanted: np.dtype[Any]) -> Any:
    if wanted.itemsize == bits.dtype.itemsize:
        return bits.view(wanted)[()]
    if wanted.kind == "f":
        return bits.view(own)[()].astype(wanted)
    raise Unsupported(f"float constant {bits:#x} as a {wanted}")


def reader(symbols: Symbols, token: str, ptx_type: str) -> Read:
    """Return a function that returns the operand's values as `dtype_of(ptx_type)`."""
    if ptx_type == "pred":
        return _predicate_reader(symbols, token)
    if token.startswith("{"):
        return _packing_reader(symbols, token, ptx_type)
    if token in symbols.registers:
        return _register_reader(token, symbols.registers[token], dtype_of(ptx_type))
    value = constant(token, ptx_type)
    if value is None and token in symbols.shared:
        value = dtype_of(ptx_type).type(symbols.shared[token])
    if value is not None:
        return lambda lanes: value
    if token.startswith("%"):
        dtype = dtype_of(ptx_type)
        return lambda lanes: lanes.special(token).astype(dtype)
    raise Unsupported(f"operand {token}")


def _predicate_reader(symbols: Symbols, token: str) -> Read:
    name = token.lstrip("!")
    if token in PREDICATE_CONSTANTS:
        value = np.asarray(PREDICATE_CONSTANTS[token])
        return lambda lanes: value
    if symbols.registers.get(name) != 1:
        raise Unsupported(f"predicate operand {token}")
    if token.startswith("!"):
        return lambda lanes: np.logical_not(lanes.registers[name])
    return lambda lanes: lanes.registers[name]


def _register_reader(name: str, width: int, dtype: np.dtype[Any]) -> Read:
    wanted = dtype.itemsize * 8
    if width == wanted:

        def read(lanes: Lanes) -> Array:
            value = lanes.registers[name]
            return value if value.dtype is dtype else value.view(dtype)

        return read
    if width < wanted:
        raise Unsupported(f"operand {name} of {width} bits where {wanted} are needed")
    whole, part = UNSIGNED[width], UNSIGNED[wanted]
    return lambda lanes: lanes.registers[name].view(whole).astype(part).view(dtype)


def _packing_reader(symbols: Symbols, token: str, ptx_type: str) -> Read:
    elements = vector_elements(token)
    dtype = dtype_of(ptx_type)
    width = WIDTH[ptx_type] // len(elements)
    parts = [reader(symbols, element, f"b{width}") for element in elements]

    def pack(lanes: Lanes) -> Array:
        packed = np.zeros(lanes.count, dtype)
        for position, part in enumerate(parts):
            packed |= part(lanes).astype(dtype) << dtype.type(position * width)
        return packed

    return pack


def writer(symbols: Symbols, token: str, ptx_type: str) -> Write:
    """Return a function that writes values to a register, in the lanes of a mask."""
    if token == "_":
        return lambda lanes, value, mask: None
    if token.startswith("{"):
        return _unpacking_writer(symbols, token, ptx_type)
    width = symbols.registers.get(token)
    if width is None:
        raise Unsupported(f"destination {token}")
    if width == 1:
        return _predicate_writer(token)
    size, unsigned = width // 8, UNSIGNED[width]

    def write(lanes: Lanes, value: Array, mask: Mask) -> None:
        if value.ndim == 0:
            value = np.full(lanes.count, value)
        if value.dtype.itemsize != size:
            if value.dtype.kind == "f":
                raise Unsupported(f"a {value.dtype} result in {token} of {width} bits")
            value = value.astype(unsigned)  # sign extension included
        if mask is not None:
            old = lanes.registers[token]
            if old.dtype is not value.dtype:
                old = old.view(value.dtype)
            value = np.where(mask, value, old)
        lanes.registers[token] = value

    return write


def _predicate_writer(name: str) -> Write:
    def write(lanes: Lanes, value: Array, mask: Mask) -> None:
        if value.ndim == 0:
            value = np.full(lanes.count, value)
        lanes.registers[name] = (
            value if mask is None else np.where(mask, value, lanes.registers[name])
        )

    return write


def _unpacking_writer(symbols: Symbols, token: str, ptx_type: str) -> Write:
    elements = vector_elements(token)
    width = WIDTH[ptx_type] // len(elements)
    whole, part = UNSIGNED[WIDTH[ptx_type]], UNSIGNED[width]
    parts = [writer(symbols, element, f"b{width}") for element in elements]

    def unpack(lanes: Lanes, value: Array, mask: Mask) -> None:
        bits = np.asarray(value).view(whole)
        for position, write in enumerate(parts):
            write(lanes, (bits >> whole.type(position * width)).astype(part), mask)

    return unpack


def selection_reader(symbols: Symbols, token: str, ptx_type: str) -> Read:
    """Return a function that returns the operand's bits, for any type."""
    value = constant(token, ptx_type)
    if value is None:
        return reader(symbols, token, bits_of(ptx_type))
    bits = np.asarray(value).view(dtype_of(bits_of(ptx_type)))[()]
    return lambda lanes: bits


def address_reader(symbols: Symbols, token: str) -> Read:
    """Return a function that returns the addresses of `[register + offset]` as int64."""
    match = ADDRESS.match(token)
    if match is None:
        raise Unsupported(f"address {token}")
    base, offset = match.group(1), np.int64(int(match.group(2) or "0", 0))
    if base in symbols.registers:
        dtype = UNSIGNED[symbols.registers[base]]
        return lambda lanes: lanes.registers[base].view(dtype).astype(np.int64) + offset
    start = symbols.shared.get(base, constant(base, "s64"))
    if start is None:
        raise Unsupported(f"address {token}")
    return lambda lanes: np.full(lanes.count, np.int64(start) + offset)
