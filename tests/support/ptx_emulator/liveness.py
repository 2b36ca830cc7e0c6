"""Proofs about a kernel without running it: reachable, live and needed instructions."""

import re
from functools import cached_property

from .machine import Kernel
from .parser import Instruction

REGISTER = re.compile(r"%?[A-Za-z_$][\w$]*")
NO_EFFECT_HERE = frozenset({"membar", "fence", "prefetch", "prefetchu", "griddepcontrol"})
CONTROL = frozenset({"bra", "bar", "barrier", "ret", "exit", "trap"})
WITHOUT_RESULT = NO_EFFECT_HERE | CONTROL | {"st", "red", "stmatrix"}
TOUCHES_MEMORY = frozenset({"ld", "st", "atom", "red", "ldmatrix", "stmatrix"})
EXCHANGES = frozenset({"shfl", "vote", "redux", "activemask", "elect"})


def touches_memory(instruction: Instruction) -> bool:
    """Return True if the instruction reads or writes global or shared memory."""
    return instruction.opcode in TOUCHES_MEMORY and "param" not in instruction.modifiers


def only_computes(instruction: Instruction) -> bool:
    """Return True if the instruction only writes its registers."""
    opcode = instruction.opcode
    return not touches_memory(instruction) and opcode not in WITHOUT_RESULT | EXCHANGES


def is_barrier(instruction: Instruction) -> bool:
    """Return True for a barrier of a whole program."""
    return instruction.opcode in ("bar", "barrier") and "warp" not in instruction.modifiers


class Liveness:
    """The facts about one kernel, computed at the first use."""

    def __init__(self, kernel: Kernel) -> None:
        """Store the kernel."""
        self._code = kernel.instructions
        self._labels = kernel.labels
        self._registers = kernel.symbols.registers

    @cached_property
    def reachable(self) -> set[int]:
        """Return the positions that some execution may reach."""
        found: set[int] = set()
        waiting = [0]
        while waiting:
            position = waiting.pop()
            if position in found or position >= len(self._code):
                continue
            found.add(position)
            waiting.extend(self.successors[position])
        return found

    @cached_property
    def successors(self) -> list[list[int]]:
        """Return for each position the positions that may follow; one past the end is an exit."""
        return [self._followers(position) for position in range(len(self._code))]

    @cached_property
    def live_after(self) -> list[set[str]]:
        """Return for each position the registers whose values may be read after it."""
        before: list[set[str]] = [set() for _ in self._code]
        after: list[set[str]] = [set() for _ in self._code]
        changed = True
        while changed:
            changed = False
            for position in reversed(range(len(self._code))):
                live = set[str]().union(
                    *(before[next_] for next_ in self.successors[position] if next_ < len(before))
                )
                after[position] = live
                new = self._live_before(self._code[position], live)
                changed = changed or new != before[position]
                before[position] = new
        return after

    def is_dead(self, position: int) -> bool:
        """Return True if no instruction reads the registers that this one writes."""
        instruction = self._code[position]
        if instruction.opcode in WITHOUT_RESULT | {"atom"}:
            return False
        return not self.written(instruction) & self.live_after[position]

    def is_sign_unread(self, position: int) -> bool:
        """Return True if every reader of the result takes its absolute value or its square."""
        (result, *others) = self.written(self._code[position])
        readers = [code for code in self._code if result in self.read(code)]
        return not others and all(_ignores_sign(reader, result) for reader in readers)

    def is_masked_out(self, position: int) -> bool:
        """Return True if the result matters only in lanes that store nothing.

        For example, a register has some content before a predicated load into it. The content stays
        in the lanes that do not load. It has no effect if it reaches only stores under the same
        predicate, by instructions that compute lane by lane.
        """
        (result, *others) = self.written(self._code[position])
        load = self._next_writer(position, result)
        if others or load is None or load.predicate is None:
            return False
        if sum(load.predicate in self.written(code) for code in self._code) != 1:
            return False
        reached, grown = {result}, True
        while grown:
            readers = [code for code in self._code if self.read(code) & reached]
            if not all(_stays_in_lane(reader, load) for reader in readers):
                return False
            written = {name for reader in readers for name in self.written(reader)}
            grown = not written <= reached
            reached |= written
        return load.predicate not in reached

    def _next_writer(self, position: int, register: str) -> Instruction | None:
        """Return the next load into a register, if no instruction reads it before."""
        for code in self._code[position + 1 :]:
            if register in self.read(code) or code.opcode in ("bra", "ret", "exit"):
                return None
            if register in self.written(code):
                return code if code.opcode == "ld" else None
        return None

    def is_needless_barrier(self, position: int) -> bool:
        """Return True if another barrier, or no memory access, comes before or after it."""
        if not is_barrier(self._code[position]):
            return False
        return self._quiet(position, self.successors) or self._quiet(position, self._predecessors)

    def written(self, instruction: Instruction) -> set[str]:
        """Return the registers that an instruction writes."""
        if instruction.opcode in WITHOUT_RESULT or not instruction.operands:
            return set()
        return self._names(instruction.operands[0])

    def read(self, instruction: Instruction) -> set[str]:
        """Return the registers that an instruction reads, including its predicate."""
        skipped = 0 if instruction.opcode in WITHOUT_RESULT else 1
        names = self._names(" ".join(instruction.operands[skipped:]))
        return names | ({instruction.predicate} if instruction.predicate else set())

    def _names(self, text: str) -> set[str]:
        return {name for name in REGISTER.findall(text) if name in self._registers}

    def _live_before(self, instruction: Instruction, after: set[str]) -> set[str]:
        # A predicated instruction may leave its result unchanged.
        killed = set() if instruction.predicate else self.written(instruction)
        return (after - killed) | self.read(instruction)

    def _followers(self, position: int) -> list[int]:
        instruction = self._code[position]
        after = [position + 1]
        if instruction.opcode == "bra":
            target = self._labels[instruction.operands[0]]
            return [target, *after] if instruction.predicate else [target]
        if instruction.opcode in ("ret", "exit"):
            return after if instruction.predicate else []
        return after

    @cached_property
    def _predecessors(self) -> list[list[int]]:
        before: list[list[int]] = [[] for _ in self._code]
        for position, followers in enumerate(self.successors):
            for follower in followers:
                if follower < len(before):
                    before[follower].append(position)
        return before

    def _quiet(self, position: int, neighbours: list[list[int]]) -> bool:
        """Return True if every path from here meets a barrier or an end before a memory access."""
        seen: set[int] = set()
        waiting = list(neighbours[position])
        while waiting:
            current = waiting.pop()
            if current in seen or current >= len(self._code):
                continue
            seen.add(current)
            instruction = self._code[current]
            if touches_memory(instruction):
                return False
            if not is_barrier(instruction) or instruction.predicate or current == position:
                waiting.extend(neighbours[current])
        return True


def _ignores_sign(reader: Instruction, operand: str) -> bool:
    if reader.opcode == "abs":
        return True
    return reader.opcode == "mul" and reader.operands[1:] == (operand, operand)


def _stays_in_lane(reader: Instruction, load: Instruction) -> bool:
    """Return True if it computes lane by lane, or stores where the load has loaded."""
    if reader.opcode == "st":
        return (reader.predicate, reader.negated) == (load.predicate, load.negated)
    return only_computes(reader)
