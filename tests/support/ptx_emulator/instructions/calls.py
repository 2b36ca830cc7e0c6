"""Calls of functions outside of the kernel: those that a test has added to EXTERNALS."""

from collections.abc import Callable

import numpy as np

from ..errors import Unsupported
from ..lanes import Lanes
from ..operands import Symbols, reader
from ..parser import Instruction, split_operands
from ..ptx_types import Mask
from .common import Builder, Execute, allow

EXTERNALS: dict[str, Callable[..., None]] = {}
"""Functions that return nothing, by name. Each lane calls them once, with integers."""


def _call(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("uni",))
    name, *lists = instruction.operands
    if len(lists) > 1:
        raise Unsupported("a call that returns something")
    names = split_operands(lists[0][1:-1]) if lists else []
    reads = [reader(symbols, name, f"b{symbols.registers[name]}") for name in names]

    def call(lanes: Lanes, mask: Mask) -> None:
        if name not in EXTERNALS:
            raise Unsupported(f"a call of {name}, which is not among the EXTERNALS")
        arguments = [np.broadcast_to(read(lanes), lanes.count) for read in reads]
        for lane in lanes.selected(mask):
            EXTERNALS[name](*(int(values[lane]) for values in arguments))

    return call


BUILDERS: dict[str, Builder] = {"call": _call}
