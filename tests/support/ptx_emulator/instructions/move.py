"""Moves, address space conversions and instructions without an effect here."""

import numpy as np

from ..errors import Trap, Unsupported
from ..lanes import Lanes
from ..operands import Symbols, reader, selection_reader, writer
from ..parser import Instruction
from ..ptx_types import Mask, bits_of
from .common import Builder, Execute, allow, type_of

SHARED_WINDOW = np.uint64(1 << 56)
"""Generic addresses of shared memory start here."""


def _mov(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    ptx_type = type_of(instruction)
    target, source = instruction.operands
    if ptx_type == "pred":
        read, write = reader(symbols, source, "pred"), writer(symbols, target, "pred")
    else:
        read = selection_reader(symbols, source, ptx_type)
        write = writer(symbols, target, bits_of(ptx_type))
    return lambda lanes, mask: write(lanes, read(lanes), mask)


def _cvta(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("to", "global", "shared"))
    target, source = instruction.operands
    read, write = reader(symbols, source, "u64"), writer(symbols, target, "u64")
    if not instruction.has("shared"):
        return lambda lanes, mask: write(lanes, read(lanes), mask)
    if instruction.has("to"):
        return lambda lanes, mask: write(lanes, read(lanes) - SHARED_WINDOW, mask)
    return lambda lanes, mask: write(lanes, read(lanes) + SHARED_WINDOW, mask)


def _createpolicy(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile a cache policy, which affects speed only: any value is right."""
    if "fractional" not in instruction.modifiers:
        raise Unsupported("cache policy")
    write = writer(symbols, instruction.operands[0], "b64")
    return lambda lanes, mask: write(lanes, np.uint64(0), mask)


def _nothing(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile fences, prefetches and launch control as no-ops: memory is always consistent."""
    return lambda lanes, mask: None


def _trap(instruction: Instruction, symbols: Symbols) -> Execute:
    def trap(lanes: Lanes, mask: Mask) -> None:
        if lanes.active(mask).any():
            raise Trap("the kernel executed trap")

    return trap


BUILDERS: dict[str, Builder] = {
    "mov": _mov,
    "cvta": _cvta,
    "createpolicy": _createpolicy,
    "trap": _trap,
    **dict.fromkeys(("membar", "fence", "prefetch", "prefetchu", "griddepcontrol"), _nothing),
}
