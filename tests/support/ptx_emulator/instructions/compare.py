"""Comparisons and selection."""

from collections.abc import Callable

import numpy as np

from ..errors import Unsupported
from ..floats import bf16_to_f32
from ..lanes import Lanes
from ..operands import Symbols, reader, selection_reader, writer
from ..parser import Instruction
from ..ptx_types import FLOAT_TYPES, Array, Mask, bits_of
from .common import Builder, Execute, allow, type_of

COMPARISONS: dict[str, Callable[..., Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
COMBINATIONS: dict[str, Callable[..., Array]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
FLOAT_COMPARISONS = {*COMPARISONS, *(f"{name}u" for name in COMPARISONS), "num", "nan"}


def _setp(instruction: Instruction, symbols: Symbols) -> Execute:
    ptx_type = type_of(instruction)
    name = instruction.modifiers[0]
    compare = _comparison(name, ptx_type)
    allow(instruction, (name, *COMBINATIONS))
    combine = next((COMBINATIONS[m] for m in instruction.modifiers[1:] if m in COMBINATIONS), None)

    targets = instruction.operands[0].split("|")
    write = writer(symbols, targets[0], "pred")
    write_other = writer(symbols, targets[1], "pred") if len(targets) > 1 else None
    first = reader(symbols, instruction.operands[1], ptx_type)
    second = reader(symbols, instruction.operands[2], ptx_type)
    third = reader(symbols, instruction.operands[3], "pred") if combine else None

    def setp(lanes: Lanes, mask: Mask) -> None:
        result = compare(first(lanes), second(lanes))
        inverse = ~result
        if combine is not None and third is not None:
            result, inverse = combine(result, third(lanes)), combine(inverse, third(lanes))
        write(lanes, result, mask)
        if write_other is not None:
            write_other(lanes, inverse, mask)

    return setp


def _comparison(name: str, ptx_type: str) -> Callable[[Array, Array], Array]:
    if ptx_type not in FLOAT_TYPES:
        plain = UNSIGNED_NAMES.get(name, name)
        if plain not in COMPARISONS or ptx_type == "pred":
            raise Unsupported(f"comparison .{name}.{ptx_type}")
        return COMPARISONS[plain]
    if name not in FLOAT_COMPARISONS:
        raise Unsupported(f"comparison .{name}.{ptx_type}")
    if ptx_type == "bf16":
        return lambda a, b: _compare_floats(name, bf16_to_f32(a), bf16_to_f32(b))
    return lambda a, b: _compare_floats(name, a, b)


def _compare_floats(name: str, a: Array, b: Array) -> Array:
    unordered = np.isnan(a) | np.isnan(b)
    if name == "nan":
        return unordered
    if name == "num":
        return ~unordered
    if name in COMPARISONS:
        return COMPARISONS[name](a, b) & ~unordered
    return COMPARISONS[name[:-1]](a, b) | unordered


def _selp(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    target, one, other, choice = instruction.operands
    write = writer(symbols, target, bits_of(ptx_type))
    if_true = selection_reader(symbols, one, ptx_type)
    if_false = selection_reader(symbols, other, ptx_type)
    chosen = reader(symbols, choice, "pred")

    def selp(lanes: Lanes, mask: Mask) -> None:
        write(lanes, np.where(chosen(lanes), if_true(lanes), if_false(lanes)), mask)

    return selp


BUILDERS: dict[str, Builder] = {"setp": _setp, "selp": _selp}
