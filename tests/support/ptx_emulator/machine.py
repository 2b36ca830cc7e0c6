"""The kernels and their execution: divergence, barriers, program order, launches."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from .errors import EmulatorError, StepLimit, SyncError, Unsupported
from .instructions import Execute, compile_instruction
from .lanes import Geometry, Lanes
from .memory import GlobalMemory, Traffic
from .operands import Symbols
from .parser import Instruction, Parameter, Parsed, parse
from .ptx_types import UNSIGNED, WIDTH, Array, Mask, dtype_of

Order: TypeAlias = Literal["reverse"] | int | None
"""The order of the programs: None for ascending, "reverse", or a seed to shuffle them."""

LANES_AT_ONCE = 16384
MAX_STEPS = 10_000_000


@dataclass(frozen=True, eq=False)
class Step:
    """One compiled instruction; `control` is empty if the next one always follows."""

    instruction: Instruction
    control: Literal["", "branch", "exit", "barrier"]
    execute: Execute | None
    target: str = ""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel that is ready to run."""

    name: str
    target: str
    threads: int | None
    """The number of threads that the kernel demands, if any."""
    parameters: tuple[Parameter, ...]
    symbols: Symbols
    static_shared: int
    steps: tuple[Step, ...]
    labels: dict[str, int] = field(repr=False)

    @property
    def instructions(self) -> list[Instruction]:
        """Return the instructions in the order of the text."""
        return [step.instruction for step in self.steps]

    def without(self, position: int) -> "Kernel":
        """Return a copy without one instruction."""
        steps = self.steps[:position] + self.steps[position + 1 :]
        labels = {name: at if at <= position else at - 1 for name, at in self.labels.items()}
        return replace(self, steps=steps, labels=labels)

    def with_instruction(self, position: int, instruction: Instruction) -> "Kernel":
        """Return a copy with one replaced instruction."""
        step = _compile_step(instruction, self.symbols)
        return replace(self, steps=(*self.steps[:position], step, *self.steps[position + 1 :]))


@dataclass
class Execution:
    """The record of one launch."""

    steps: int
    """Instructions executed, each counted once for all the lanes that execute it together."""
    traffic: dict[str, Traffic]


def load_kernel(ptx: str, entry: str | None = None) -> Kernel:
    """Parse and compile one entry of a PTX module, with a cache."""
    return _load_kernel(ptx, entry)


@lru_cache(maxsize=512)
def _load_kernel(ptx: str, entry: str | None) -> Kernel:
    parsed: Parsed = parse(ptx, entry)
    symbols = Symbols(parsed.registers, parsed.shared)
    return Kernel(
        name=parsed.name,
        target=parsed.target,
        threads=parsed.threads,
        parameters=tuple(parsed.parameters),
        symbols=symbols,
        static_shared=parsed.static_shared,
        steps=tuple(_compile_step(instruction, symbols) for instruction in parsed.instructions),
        labels=parsed.labels,
    )


def _compile_step(instruction: Instruction, symbols: Symbols) -> Step:
    match instruction.opcode:
        case "ret" | "exit":
            return Step(instruction, "exit", None)
        case "bra":
            if set(instruction.modifiers) - {"uni"}:
                raise Unsupported(f"modifier of {instruction.text}")
            return Step(instruction, "branch", None, instruction.operands[0])
        case "bar" | "barrier":
            return _compile_barrier(instruction)
    return Step(instruction, "", compile_instruction(instruction, symbols))


def _compile_barrier(instruction: Instruction) -> Step:
    if "warp" in instruction.modifiers and instruction.operands in (("-1",), ("0xffffffff",)):
        return Step(instruction, "", _warp_barrier)
    known = set(instruction.modifiers) <= {"sync", "cta", "aligned"}
    if not known or instruction.operands != ("0",):
        raise Unsupported(f"barrier {instruction.text}")
    return Step(instruction, "barrier", None)


def _warp_barrier(lanes: Lanes, mask: Mask) -> None:
    if not lanes.check:
        return
    here = np.bincount(lanes.warp, lanes.active(mask))
    living = np.bincount(lanes.warp, lanes.alive)
    if ((here != 0) & (here != living)).any():
        raise SyncError("a warp barrier that not all living lanes of the warp reach")
    lanes.pass_warp_barrier(mask)


def launch(
    kernel: Kernel,
    grid: tuple[int, ...],
    threads: int,
    arguments: list[Any],
    memory: GlobalMemory,
    *,
    shared: int = 0,
    order: Order = None,
    check: bool = True,
    thread_races: bool = True,
    max_steps: int = MAX_STEPS,
) -> Execution:
    """Run a whole grid.

    `shared` is the dynamic shared memory in bytes. Without `check`, only bounds and alignment are
    checked. Without `thread_races`, races on global memory are checked between programs, but not
    between the threads of one. `max_steps` limits the instructions of a batch of programs.
    """
    x, y, z, *_ = (*grid, 1, 1)
    sizes, programs = (x, y, z), x * y * z
    if programs < 1 or not 1 <= threads <= 1024:
        raise EmulatorError(f"invalid launch: grid {grid}, {threads} threads")
    if kernel.threads is not None and threads != kernel.threads:
        raise EmulatorError(f"{threads} threads, but the kernel demands {kernel.threads}")
    geometry = Geometry(sizes, threads, kernel.static_shared + shared)
    parameters = _pack_parameters(kernel, arguments)
    memory.begin_launch()

    steps, batch = 0, max(1, LANES_AT_ONCE // threads)
    numbers = _program_order(programs, order)
    with np.errstate(all="ignore"):
        for start in range(0, programs, batch):
            ctas = numbers[start : start + batch]
            registers = kernel.symbols.registers
            lanes = Lanes(geometry, ctas, registers, parameters, memory, check, thread_races)
            steps += _Run(kernel, lanes, max_steps).run()
    return Execution(steps, {buffer.name: buffer.traffic for buffer in memory.buffers})


def _program_order(programs: int, order: Order) -> Array:
    numbers = np.arange(programs)
    if order is None:
        return numbers
    if order == "reverse":
        return numbers[::-1]
    return np.random.default_rng(order).permutation(numbers)


def _pack_parameters(kernel: Kernel, arguments: list[Any]) -> dict[str, Array]:
    """Return the bytes of each parameter; those without an argument, Triton's scratch, are null."""
    if len(arguments) > len(kernel.parameters):
        raise EmulatorError(f"{len(arguments)} arguments for {len(kernel.parameters)} parameters")
    missing = len(kernel.parameters) - len(arguments)
    packed = {}
    for parameter, value in zip(kernel.parameters, [*arguments, *[0] * missing], strict=True):
        if parameter.count is not None:
            raise Unsupported(f"array parameter {parameter.name}")
        packed[parameter.name] = _pack(value, parameter.ptx_type)
    return packed


def _pack(value: Any, ptx_type: str) -> Array:
    if isinstance(value, np.generic):
        return np.array([value]).view(np.uint8)
    dtype = dtype_of(ptx_type)
    if dtype.kind == "f":
        return np.array([value], dtype).view(np.uint8)
    width = WIDTH[ptx_type]
    return np.array([int(value) & ((1 << width) - 1)], UNSIGNED[width]).view(np.uint8)


class _Run:
    """The execution of one batch of programs.

    Lanes at the same instruction form a group. The group with the lowest position runs first, so
    that diverged lanes meet again. Lanes at a barrier wait until all living lanes of their program
    reach it.
    """

    def __init__(self, kernel: Kernel, lanes: Lanes, max_steps: int) -> None:
        self._kernel = kernel
        self._lanes = lanes
        self._max_steps = max_steps
        self._count = 0
        self._ready: dict[int, Array] = {0: np.ones(lanes.count, bool)}
        self._waiting: dict[int, Array] = {}

    def run(self) -> int:
        """Execute until every lane has exited, and return the number of steps."""
        while self._ready:
            place = min(self._ready)
            self._run_group(place, self._ready.pop(place))
        if self._waiting:
            self._report_deadlock()
        return self._count

    def _run_group(self, place: int, group: Array) -> None:
        steps, lanes, limit = self._kernel.steps, self._lanes, self._max_steps
        stop = min([*self._ready, len(steps)])
        whole = bool(group.all())
        while place < stop:
            step = steps[place]
            self._count += 1
            if self._count > limit:
                raise StepLimit(f"more than {limit} steps: an endless loop?")
            mask = self._guarded(step.instruction, group, whole)
            if step.control:
                self._control(step, place, group, group if mask is None else mask)
                return
            if mask is None or mask.any():
                assert step.execute is not None
                step.execute(lanes, mask)
            place += 1
        if place >= len(steps):
            self._exit(group)
        else:
            _merge(self._ready, place, group)

    def _guarded(self, instruction: Instruction, group: Array, whole: bool) -> Mask:
        if instruction.predicate is None:
            return None if whole else group
        flags = self._lanes.registers[instruction.predicate]
        mask = group & ~flags if instruction.negated else group & flags
        return None if whole and mask.all() else mask

    def _control(self, step: Step, place: int, group: Array, taken: Array) -> None:
        if step.control == "branch":
            _merge(self._ready, self._kernel.labels[step.target], taken)
        elif step.control == "barrier":
            _merge(self._waiting, place + 1, taken)
        _merge(self._ready, place + 1, group & ~taken)
        if step.control == "exit":
            self._exit(taken)
        self._release()

    def _exit(self, group: Array) -> None:
        self._lanes.alive = self._lanes.alive & ~group
        self._release()

    def _release(self) -> None:
        """Release the programs whose living lanes all wait at the same barrier."""
        lanes = self._lanes
        by_program = (lanes.programs, lanes.geometry.threads)
        for place, waiting in list(self._waiting.items()):
            rows = waiting.reshape(by_program)
            met = (rows | ~lanes.alive.reshape(by_program)).all(axis=1) & rows.any(axis=1)
            if not met.any():
                continue
            released = waiting & np.repeat(met, lanes.geometry.threads)
            lanes.pass_barrier(released)
            del self._waiting[place]
            _merge(self._waiting, place, waiting & ~released)
            _merge(self._ready, place, released)

    def _report_deadlock(self) -> None:
        places = sorted(self._waiting)
        texts = [self._kernel.steps[place - 1].instruction.text for place in places]
        raise SyncError(
            f"deadlock: lanes wait at instructions {[place - 1 for place in places]} ({texts}), "
            "which other lanes of their program will not reach"
        )


def _merge(groups: dict[int, Array], place: int, group: Array) -> None:
    if group.any():
        groups[place] = groups[place] | group if place in groups else group
