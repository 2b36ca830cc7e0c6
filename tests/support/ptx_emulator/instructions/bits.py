"""Bit manipulation: lop3, prmt, bfe, bfi, shf, popc, clz, brev."""

import numpy as np

from ..errors import Unsupported
from ..operands import Symbols
from ..parser import Instruction
from ..ptx_types import UNSIGNED, WIDTH, Array, dtype_of
from .common import Builder, Execute, allow, pointwise, type_of


def _lop3(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    table = int(instruction.operands[4], 0)

    def lop3(a: Array, b: Array, c: Array) -> Array:
        result = np.uint32(0)
        for row in range(8):
            if table >> row & 1:
                term = (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
                result = result | term
        return np.asarray(result)

    without_table = Instruction("lop3", instruction.modifiers, instruction.operands[:4])
    return pointwise(without_table, symbols, lop3, ["b32"] * 3, "b32")


def _prmt(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    return pointwise(instruction, symbols, permute_bytes, ["b32"] * 3, "b32")


def permute_bytes(a: Array, b: Array, selectors: Array) -> Array:
    """Return four bytes chosen from the eight of a and b; bit 3 of a selector copies the sign."""
    pool = (b.astype(np.uint64) << np.uint64(32)) | a
    result = np.uint32(0)
    for position in range(4):
        selector = (selectors >> np.uint32(4 * position)) & np.uint32(15)
        shift = (selector & np.uint32(7)).astype(np.uint64) * np.uint64(8)
        byte = ((pool >> shift) & np.uint64(255)).astype(np.uint32)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        byte = np.where(selector & np.uint32(8), sign, byte)
        result = result | (byte << np.uint32(8 * position))
    return np.asarray(result)


def _shf(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("l", "r", "wrap", "clamp"))

    def shf(low: Array, high: Array, amount: Array) -> Array:
        within = amount & np.uint32(31) if instruction.has("wrap") else np.minimum(amount, 32)
        within = within.astype(np.uint64)
        pair = (high.astype(np.uint64) << np.uint64(32)) | low
        shifted = (pair << within) >> np.uint64(32) if instruction.has("l") else pair >> within
        return shifted.astype(np.uint32)

    return pointwise(instruction, symbols, shf, ["u32"] * 3, "u32")


def _bfe(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    width, dtype = WIDTH[ptx_type], dtype_of(ptx_type)

    def bfe(value: Array, start: Array, length: Array) -> Array:
        start = np.minimum(start & np.uint32(255), width).astype(np.int64)
        length = np.minimum(length & np.uint32(255), width).astype(np.int64)
        extracted = _shift_right(value.view(UNSIGNED[width]), start, width) & _ones(length, width)
        if dtype.kind == "u":
            return extracted
        sign_bit = np.clip(np.minimum(start + length - 1, width - 1), 0, width - 1)
        negative = (_shift_right(value.view(UNSIGNED[width]), sign_bit, width) & 1).astype(bool)
        filled = extracted | ~_ones(length, width)
        return np.where((length > 0) & negative, filled, extracted).view(dtype)

    return pointwise(instruction, symbols, bfe, [ptx_type, "u32", "u32"], ptx_type)


def _bfi(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    width = WIDTH[ptx_type]

    def bfi(value: Array, base: Array, start: Array, length: Array) -> Array:
        start = np.minimum(start & np.uint32(255), width).astype(np.int64)
        length = np.minimum(length & np.uint32(255), width).astype(np.int64)
        field = _shift_left(_ones(length, width), start, width)
        return (_shift_left(value, start, width) & field) | (base & ~field)

    return pointwise(instruction, symbols, bfi, [ptx_type, ptx_type, "u32", "u32"], ptx_type)


def _ones(count: Array, width: int) -> Array:
    dtype = UNSIGNED[width].type
    return ~_shift_left(~np.zeros_like(count, dtype), count, width)


def _shift_left(value: Array, amount: Array, width: int) -> Array:
    dtype = UNSIGNED[width].type
    within = np.minimum(amount, width - 1).astype(dtype)
    return np.where(amount >= width, dtype(0), value << within)


def _shift_right(value: Array, amount: Array, width: int) -> Array:
    dtype = UNSIGNED[width].type
    within = np.minimum(amount, width - 1).astype(dtype)
    return np.where(amount >= width, dtype(0), value >> within)


def _popc(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    return pointwise(
        instruction,
        symbols,
        lambda x: np.bitwise_count(x).astype(np.uint32),
        [type_of(instruction)],
        "u32",
    )


def _clz(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    width = WIDTH[ptx_type]

    def clz(value: Array) -> Array:
        smeared = np.asarray(value)
        for distance in (1, 2, 4, 8, 16, 32)[: width.bit_length() - 1]:
            smeared = smeared | (smeared >> smeared.dtype.type(distance))
        return (width - np.bitwise_count(smeared).astype(np.int64)).astype(np.uint32)

    return pointwise(instruction, symbols, clz, [ptx_type], "u32")


def _brev(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    if ptx_type not in ("b32", "b64"):
        raise Unsupported(f"type .{ptx_type}")

    def brev(value: Array) -> Array:
        result = np.zeros_like(value)
        one = result.dtype.type(1)
        for position in range(WIDTH[ptx_type]):
            result = (result << one) | ((value >> result.dtype.type(position)) & one)
        return result

    return pointwise(instruction, symbols, brev, [ptx_type], ptx_type)


BUILDERS: dict[str, Builder] = {
    "lop3": _lop3,
    "prmt": _prmt,
    "shf": _shf,
    "bfe": _bfe,
    "bfi": _bfi,
    "popc": _popc,
    "clz": _clz,
    "brev": _brev,
}
