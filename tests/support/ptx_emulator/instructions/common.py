"""Helpers of all instruction groups: types, unsupported modifiers, simple shapes."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ..errors import Unsupported
from ..lanes import Lanes
from ..operands import Read, Symbols, Write, reader, writer
from ..parser import Instruction
from ..ptx_types import WIDTH, Array, Mask

Execute: TypeAlias = Callable[[Lanes, Mask], None]
Builder: TypeAlias = Callable[[Instruction, Symbols], Execute]


def types_of(instruction: Instruction) -> list[str]:
    """Return the types among the modifiers, in order."""
    return [modifier for modifier in instruction.modifiers if modifier in WIDTH]


def type_of(instruction: Instruction) -> str:
    """Return the last type among the modifiers."""
    types = types_of(instruction)
    if not types:
        raise Unsupported("no type")
    return types[-1]


def allow(instruction: Instruction, modifiers: Iterable[str]) -> None:
    """Raise Unsupported for a modifier that is neither a type nor listed."""
    unknown = set(instruction.modifiers) - set(modifiers) - set(WIDTH)
    if unknown:
        raise Unsupported(f"modifier .{sorted(unknown)[0]}")


def pointwise(
    instruction: Instruction,
    symbols: Symbols,
    function: Callable[..., Array],
    source_types: list[str],
    result_type: str,
) -> Execute:
    """Compile an instruction whose first operand is a function of the others, lane by lane."""
    if len(instruction.operands) != len(source_types) + 1:
        raise Unsupported(f"{len(instruction.operands)} operands")
    write = writer(symbols, instruction.operands[0], result_type)
    reads = [
        reader(symbols, token, ptx_type)
        for token, ptx_type in zip(instruction.operands[1:], source_types, strict=True)
    ]
    return _apply(function, reads, write)


def _apply(function: Callable[..., Array], reads: list[Read], write: Write) -> Execute:
    if len(reads) == 1:
        (first,) = reads
        return lambda lanes, mask: write(lanes, function(first(lanes)), mask)
    if len(reads) == 2:
        first, second = reads
        return lambda lanes, mask: write(lanes, function(first(lanes), second(lanes)), mask)
    return lambda lanes, mask: write(lanes, function(*[read(lanes) for read in reads]), mask)
