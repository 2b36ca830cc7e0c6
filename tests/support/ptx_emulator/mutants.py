"""Mutants, copies of a kernel with one changed instruction, and a survey of the detected ones.

`survey(kernel, trial)` runs a trial on every mutant. A mutant that provably does the same as the
kernel is not run and not counted.
"""

import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from .errors import MemoryFault, RaceError, StepLimit, SyncError, Unsupported
from .liveness import NO_EFFECT_HERE, Liveness, is_barrier, only_computes, touches_memory
from .machine import Kernel
from .parser import Instruction
from .ptx_types import WIDTH

OTHER_COMPARISON = {
    "lt": "le",
    "le": "lt",
    "gt": "ge",
    "ge": "gt",
    "eq": "ne",
    "ne": "eq",
    "lo": "ls",
    "ls": "lo",
    "hi": "hs",
    "hs": "hi",
    "ltu": "leu",
    "leu": "ltu",
    "gtu": "geu",
    "geu": "gtu",
    "equ": "neu",
    "neu": "equ",
}
SYMMETRIC = frozenset({"eq", "ne", "equ", "neu", "num", "nan"})
OTHER_OPCODE = {"add": "sub", "sub": "add", "min": "max", "max": "min"}
SWAPPED_SOURCES = frozenset({"sub", "div", "rem", "setp", "selp"})
WITHOUT_CONSTANTS = frozenset({"bra", "bar", "barrier", "shfl", "vote", "redux", "ret", "exit"})
INTEGER = re.compile(r"^-?(0x[0-9a-fA-F]+|\d+)$")
OFFSET = re.compile(r"^\[\s*([%\w$]+)\s*\+\s*(-?\d+)\s*\]$")


class Verdict(Enum):
    """The result of a mutant."""

    WRONG = "wrong result"
    RACE = "race"
    SYNC = "sync"
    MEMORY = "memory fault"
    STEP_LIMIT = "step limit"
    OTHER = "other error"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"


@dataclass(frozen=True)
class Mutant:
    """One changed kernel."""

    kind: str
    position: int
    before: str
    after: str
    kernel: Kernel = field(repr=False)
    equivalent: str = ""
    """Why the mutant cannot differ from the kernel, if that is known."""

    @property
    def description(self) -> str:
        """Return the change in one line."""
        change = f" -> {self.after}" if self.after else ""
        return f"{self.kind} at {self.position}: {self.before}{change}"


@dataclass(frozen=True)
class Report:
    """The verdicts on all mutants of a kernel."""

    verdicts: list[tuple[Mutant, Verdict]]

    @property
    def counts(self) -> Counter[Verdict]:
        """Count the mutants by verdict."""
        return Counter(verdict for _, verdict in self.verdicts)

    @property
    def survivors(self) -> list[Mutant]:
        """Return the mutants that the trial did not detect."""
        return [mutant for mutant, verdict in self.verdicts if verdict is Verdict.SURVIVED]

    @property
    def judged(self) -> int:
        """Return the number of mutants that ran."""
        return len(self.verdicts) - self.counts[Verdict.EQUIVALENT]

    @property
    def detected(self) -> float:
        """Return the share of detected mutants among those that ran."""
        return 1 - len(self.survivors) / max(self.judged, 1)

    def __str__(self) -> str:
        """Return counts and survivors, one on each line."""
        fates = ", ".join(f"{count} {verdict.value}" for verdict, count in self.counts.items())
        lines = [f"{self.judged} mutants, {self.detected:.1%} detected ({fates})"]
        return "\n".join(lines + [f"  survived: {mutant.description}" for mutant in self.survivors])


def survey(
    kernel: Kernel,
    trial: Callable[[Kernel], bool],
    *,
    sample: int | None = None,
    seed: int = 0,
    kinds: set[str] | None = None,
) -> Report:
    """Run a trial on the mutants of a kernel, or on a sample of them.

    `trial` runs the given kernel on fresh inputs and returns True if all results are right; it may
    raise. It must return True for the kernel itself.
    """
    if not trial(kernel):
        raise ValueError("the trial fails for the kernel as it is")
    chosen = [mutant for mutant in mutants(kernel) if kinds is None or mutant.kind in kinds]
    if sample is not None and sample < len(chosen):
        chosen = random.Random(seed).sample(chosen, sample)
    return Report([(mutant, _judge(mutant, trial)) for mutant in chosen])


def _judge(mutant: Mutant, trial: Callable[[Kernel], bool]) -> Verdict:
    if mutant.equivalent:
        return Verdict.EQUIVALENT
    try:
        return Verdict.SURVIVED if trial(mutant.kernel) else Verdict.WRONG
    except AssertionError:
        return Verdict.WRONG
    except RaceError:
        return Verdict.RACE
    except SyncError:
        return Verdict.SYNC
    except MemoryFault:
        return Verdict.MEMORY
    except StepLimit:
        return Verdict.STEP_LIMIT
    except Exception:
        return Verdict.OTHER


def mutants(kernel: Kernel) -> Iterator[Mutant]:
    """Return all mutants of a kernel; those that cannot differ from it are marked."""
    facts = Liveness(kernel)
    for position, instruction in enumerate(kernel.instructions):
        # Fences and prefetches have no effect here: no test could detect their deletion.
        if instruction.opcode in NO_EFFECT_HERE:
            continue
        yield _deletion(kernel, position, instruction, facts)
        for kind, changed in _changes(instruction):
            mutant = _replacement(kernel, position, instruction, changed, kind, facts)
            if mutant is not None:
                yield mutant


def _deletion(kernel: Kernel, position: int, instruction: Instruction, facts: Liveness) -> Mutant:
    kind = "remove barrier" if is_barrier(instruction) else "delete"
    reason = _same_whatever_it_does(kernel, position, facts)
    if not reason and facts.is_dead(position):
        reason = "nothing reads its result"
    if not reason and facts.is_needless_barrier(position):
        reason = "no memory access that this barrier alone orders"
    if not reason and instruction.opcode in ("ret", "exit") and position == len(kernel.steps) - 1:
        reason = "the end of the kernel is an exit"
    return Mutant(kind, position, instruction.text, "", kernel.without(position), reason)


def _replacement(
    kernel: Kernel,
    position: int,
    instruction: Instruction,
    changed: Instruction,
    kind: str,
    facts: Liveness,
) -> Mutant | None:
    try:
        mutated = kernel.with_instruction(position, changed)
    except Unsupported:
        return None
    reason = _same_whatever_it_does(kernel, position, facts)
    if not reason and only_computes(changed) and facts.is_dead(position):
        reason = "nothing reads its result"
    if not reason and kind == "constant" and _is_other_bytes_constant(instruction, changed):
        reason = "the selector takes no byte of it"
    is_difference = kind == "swap sources" and instruction.opcode == "sub"
    if not reason and is_difference and facts.is_sign_unread(position):
        reason = "nothing reads the sign of its result"
    return Mutant(kind, position, instruction.text, changed.text, mutated, reason)


def _is_other_bytes_constant(instruction: Instruction, changed: Instruction) -> bool:
    """Return True if the second source of a `prmt` changed but its constant selector ignores it."""
    if instruction.opcode != "prmt" or instruction.operands[2] == changed.operands[2]:
        return False
    selector = instruction.operands[3].rstrip("U")
    digits = int(selector, 0) if INTEGER.match(selector) else 4
    return all((digits >> 4 * place) & 7 < 4 for place in range(4))


def _same_whatever_it_does(kernel: Kernel, position: int, facts: Liveness) -> str:
    instruction = kernel.instructions[position]
    if position not in facts.reachable:
        return "never reached"
    if instruction.opcode == "mov" and facts.is_masked_out(position):
        return "seen by no lane that stores"
    if instruction.opcode == "bra" and kernel.labels[instruction.operands[0]] == position + 1:
        return "a branch to the next instruction"
    return ""


def _changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    yield from _predicate_changes(instruction)
    yield from _opcode_changes(instruction)
    yield from _operand_swaps(instruction)
    yield from _shuffle_changes(instruction)
    yield from _constant_changes(instruction)
    yield from _offset_changes(instruction)


def _predicate_changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    if instruction.predicate is None:
        return
    yield "drop predicate", replace(instruction, predicate=None, negated=False)
    yield "negate predicate", replace(instruction, negated=not instruction.negated)


def _opcode_changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    if instruction.opcode in OTHER_OPCODE:
        other = OTHER_OPCODE[instruction.opcode]
        yield f"{instruction.opcode} -> {other}", replace(instruction, opcode=other)
    if instruction.opcode == "setp" and instruction.modifiers[0] in OTHER_COMPARISON:
        comparison, *rest = instruction.modifiers
        modifiers = (OTHER_COMPARISON[comparison], *rest)
        yield "other comparison", replace(instruction, modifiers=modifiers)


def _operand_swaps(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    if instruction.opcode not in SWAPPED_SOURCES:
        return
    if instruction.opcode == "setp" and instruction.modifiers[0] in SYMMETRIC:
        return
    target, first, second, *rest = instruction.operands
    if first != second:
        yield "swap sources", replace(instruction, operands=(target, second, first, *rest))


def _shuffle_changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    if instruction.opcode != "shfl" or not INTEGER.match(instruction.operands[2]):
        return
    offset = int(instruction.operands[2], 0)
    yield "shuffle offset", _with_operand(instruction, 2, str(offset // 2 if offset > 1 else 2))


def _constant_changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    if instruction.opcode in WITHOUT_CONSTANTS:
        return
    for index, operand in enumerate(instruction.operands):
        for changed in _neighbours(operand):
            yield "constant", _with_operand(instruction, index, changed)


def _neighbours(operand: str) -> list[str]:
    if INTEGER.match(operand):
        value = int(operand, 0)
        return [str(value + 1), str(value - 1)]
    if operand.startswith("0f"):
        (value,) = struct.unpack(">f", bytes.fromhex(operand[2:]))
        return ["0f" + struct.pack(">f", _other_float(value)).hex().upper()]
    if operand.startswith("0d"):
        (value,) = struct.unpack(">d", bytes.fromhex(operand[2:]))
        return ["0d" + struct.pack(">d", _other_float(value)).hex().upper()]
    return []


def _other_float(value: float) -> float:
    """Return the number plus one; zero if that rounds to the number or is NaN."""
    return value + 1 if abs(value) < 2**20 else 0.0


def _offset_changes(instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
    """Return addresses moved by one whole access, so that they stay aligned."""
    if not touches_memory(instruction):
        return
    width = next(WIDTH[m] // 8 for m in reversed(instruction.modifiers) if m in WIDTH)
    count = next((int(m[1:]) for m in instruction.modifiers if m in ("v2", "v4", "v8")), 1)
    for index, operand in enumerate(instruction.operands):
        match = OFFSET.match(operand)
        if match:
            moved = int(match.group(2)) + width * count
            yield "address", _with_operand(instruction, index, f"[ {match.group(1)} + {moved} ]")


def _with_operand(instruction: Instruction, index: int, operand: str) -> Instruction:
    operands = instruction.operands
    return replace(instruction, operands=(*operands[:index], operand, *operands[index + 1 :]))
