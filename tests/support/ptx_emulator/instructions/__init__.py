"""The semantics of the instructions, by group; `compile_instruction` looks an opcode up."""

from ..errors import Unsupported
from ..operands import Symbols
from ..parser import Instruction
from . import bits, calls, compare, convert, exchange, float_math, integer_math, memory_access, move
from .common import Builder, Execute, type_of

__all__ = ["Execute", "compile_instruction"]

BUILDERS: dict[str, Builder] = {
    **move.BUILDERS,
    **compare.BUILDERS,
    **convert.BUILDERS,
    **memory_access.BUILDERS,
    **exchange.BUILDERS,
    **bits.BUILDERS,
    **calls.BUILDERS,
}


def compile_instruction(instruction: Instruction, symbols: Symbols) -> Execute:
    """Return the function that executes an instruction; raise Unsupported for an unknown one."""
    try:
        return _builder(instruction)(instruction, symbols)
    except Unsupported as error:
        raise Unsupported(f"{error} in: {instruction.text}") from None
    except (IndexError, KeyError) as error:
        raise Unsupported(f"unexpected form ({error!r}) of: {instruction.text}") from None


def _builder(instruction: Instruction) -> Builder:
    if instruction.opcode in BUILDERS:
        return BUILDERS[instruction.opcode]
    if float_math.handles(instruction):
        return float_math.build
    if integer_math.handles(instruction):
        return integer_math.build
    raise Unsupported(f"opcode {instruction.opcode} for type {type_of(instruction)}")
