"""Loads, stores and atomics, and the matrix forms of shared memory accesses."""

import re

import numpy as np

from ..errors import SyncError, Unsupported
from ..lanes import WARP, Lanes
from ..operands import Symbols, address_reader, reader, selection_reader, writer
from ..parser import Instruction, vector_elements
from ..ptx_types import WIDTH, Array, Mask, dtype_of
from .common import Builder, Execute, allow, type_of
from .move import SHARED_WINDOW

VECTORS = {"v2": 2, "v4": 4, "v8": 8}
SPACES = ("global", "shared", "shared::cta")
ORDERED = ("acquire", "release", "relaxed", "volatile")
"""Accesses that are allowed to race: they take part in no race check."""
SCOPES = ("cta", "gpu", "sys", "cluster", "weak")
CACHING = ("ca", "cg", "cs", "cv", "wb", "wt", "lu", "nc")
HINT = re.compile(r"^L[12]::\w+$")
ATOMICS = ("add", "min", "max", "and", "or", "xor", "exch", "cas")


def _ld(instruction: Instruction, symbols: Symbols) -> Execute:
    if instruction.has("param"):
        return _ld_param(instruction, symbols)
    _allow_access(instruction)
    ptx_type, count = type_of(instruction), _vector(instruction)
    width, dtype = WIDTH[ptx_type] // 8, dtype_of(ptx_type)
    space, ordered = _space(instruction), instruction.has(*ORDERED)
    targets = vector_elements(instruction.operands[0])
    if len(targets) != count:
        raise Unsupported(f"{len(targets)} destinations")
    writes = [writer(symbols, target, ptx_type) for target in targets]
    address = address_reader(symbols, instruction.operands[1])

    def ld(lanes: Lanes, mask: Mask) -> None:
        selected = lanes.selected(mask)
        addresses = address(lanes)
        if mask is not None:
            addresses = addresses[selected]
        where, addresses = _resolve(space, addresses)
        if where == "shared":
            values = lanes.load_shared(addresses, selected, width, count)
        else:
            values = lanes.load_global(addresses, selected, width, count, ordered)
        for write, value in zip(writes, values, strict=True):
            write(lanes, _spread(value.view(dtype), selected, lanes.count), mask)

    return ld


def _st(instruction: Instruction, symbols: Symbols) -> Execute:
    if instruction.has("param"):
        return _st_param(instruction, symbols)
    _allow_access(instruction)
    ptx_type, count = type_of(instruction), _vector(instruction)
    width, space = WIDTH[ptx_type] // 8, _space(instruction)
    sources = vector_elements(instruction.operands[1])
    if len(sources) != count:
        raise Unsupported(f"{len(sources)} sources")
    reads = [selection_reader(symbols, source, ptx_type) for source in sources]
    address = address_reader(symbols, instruction.operands[0])

    def st(lanes: Lanes, mask: Mask) -> None:
        selected = lanes.selected(mask)
        where, addresses = _resolve(space, address(lanes)[selected])
        values = [_all_lanes(read(lanes), lanes.count)[selected] for read in reads]
        if where == "shared":
            lanes.store_shared(addresses, selected, width, values)
        else:
            lanes.store_global(addresses, selected, width, values)

    return st


def _ld_param(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("param", *VECTORS))
    ptx_type = type_of(instruction)
    dtype = dtype_of(ptx_type)
    match = re.match(r"^\[\s*([\w$]+)\s*(?:\+\s*(\d+))?\s*\]$", instruction.operands[1])
    if match is None:
        raise Unsupported(f"address {instruction.operands[1]}")
    name, start = match.group(1), int(match.group(2) or 0)
    targets = vector_elements(instruction.operands[0])
    writes = [writer(symbols, target, ptx_type) for target in targets]

    def ld_param(lanes: Lanes, mask: Mask) -> None:
        raw = lanes.parameters[name][start : start + dtype.itemsize * len(writes)]
        for write, value in zip(writes, raw.view(dtype), strict=True):
            write(lanes, np.full(lanes.count, value, dtype), mask)

    return ld_param


def _st_param(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile the store of a call's argument: a register of the same name."""
    allow(instruction, ("param",))
    ptx_type = type_of(instruction)
    match = re.match(r"^\[\s*([\w$]+)\s*(?:\+\s*0)?\s*\]$", instruction.operands[0])
    if match is None or symbols.registers.get(match.group(1)) != WIDTH[ptx_type]:
        raise Unsupported(f"address {instruction.operands[0]}")
    read = reader(symbols, instruction.operands[1], ptx_type)
    write = writer(symbols, match.group(1), ptx_type)
    return lambda lanes, mask: write(lanes, read(lanes), mask)


def _atomic(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile an atomic; lanes act one after another, in the order of their indices."""
    allow(instruction, (*SPACES, *ORDERED, *SCOPES, "acq_rel", "noftz", *ATOMICS))
    ptx_type, returns = type_of(instruction), instruction.opcode == "atom"
    dtype, kind = dtype_of(ptx_type), next(m for m in instruction.modifiers if m in ATOMICS)
    if ptx_type not in ("f32", "f64", "u32", "s32", "b32", "u64", "s64", "b64"):
        raise Unsupported(f"atomic on .{ptx_type}")
    operands = instruction.operands if returns else ("_", *instruction.operands)
    write = writer(symbols, operands[0], ptx_type)
    address = address_reader(symbols, operands[1])
    value = reader(symbols, operands[2], ptx_type)
    swap = reader(symbols, operands[3], ptx_type) if kind == "cas" else value
    space = _space(instruction)

    def atomic(lanes: Lanes, mask: Mask) -> None:
        selected = lanes.selected(mask)
        result = np.zeros(lanes.count, dtype)
        values = _all_lanes(value(lanes), lanes.count)
        swaps = _all_lanes(swap(lanes), lanes.count)
        places = _places(lanes, space, address(lanes)[selected], selected, dtype.itemsize)
        for data, index, hit in places:
            elements = data.view(dtype)
            for lane, position in zip(hit, index, strict=True):
                old = elements[position]
                result[lane] = old
                elements[position] = _combine(kind, old, values[lane], swaps[lane])
        write(lanes, result, mask)

    return atomic


def _places(
    lanes: Lanes, space: str, addresses: Array, selected: Array, width: int
) -> list[tuple[Array, Array, Array]]:
    space, addresses = _resolve(space, addresses)
    if space == "shared":
        data, index = lanes.shared_elements(addresses, selected, width)
        return [(data, index, selected)]
    places = []
    for buffer, offsets, inside in lanes.memory.locate(addresses, width, "atomic"):
        hit = selected if inside is None else selected[inside]
        buffer.traffic.loads[width] += hit.size
        buffer.traffic.stores[width] += hit.size
        places.append((*buffer.elements(offsets, width), hit))
    return places


def _combine(kind: str, old: Array, value: Array, swap: Array) -> Array:
    match kind:
        case "add":
            return old + value
        case "min":
            return min(old, value)
        case "max":
            return max(old, value)
        case "and":
            return old & value
        case "or":
            return old | value
        case "xor":
            return old ^ value
        case "exch":
            return value
        case "cas":
            return swap if old == value else old
    raise Unsupported(f"atomic .{kind}")


def _matrix(instruction: Instruction, symbols: Symbols) -> Execute:
    """Compile ldmatrix and stmatrix: 8x8 matrices of 16-bit elements, spread over a warp.

    Lane t holds row t / 4 and two neighbouring columns. Lanes 8i to 8i + 7 give the addresses of
    the rows of matrix i.
    """
    allow(instruction, ("sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", *SPACES))
    if type_of(instruction) != "b16":
        raise Unsupported("a matrix of other than .b16")
    stores = instruction.opcode == "stmatrix"
    place, registers = instruction.operands if stores else reversed(instruction.operands)
    address = address_reader(symbols, place)
    names = vector_elements(registers)
    reads = [reader(symbols, name, "b32") for name in names] if stores else []
    writes = [] if stores else [writer(symbols, name, "b32") for name in names]
    transposed = instruction.has("trans")

    def element_addresses(lanes: Lanes, selected: Array, matrix: int, half: int) -> Array:
        lane = lanes.lane[selected]
        row, column = lane // 4, 2 * (lane % 4) + half
        if transposed:
            row, column = column, row
        giver = selected - lane + 8 * matrix + row
        return address(lanes)[giver] + 2 * column

    def stmatrix(lanes: Lanes, mask: Mask) -> None:
        selected = _whole_warps(lanes, mask)
        for matrix, read in enumerate(reads):
            pair = read(lanes)[selected]
            for half in (0, 1):
                element = (pair >> np.uint32(16 * half)).astype(np.uint16)
                addresses = element_addresses(lanes, selected, matrix, half)
                lanes.store_shared(addresses, selected, 2, [element])

    def ldmatrix(lanes: Lanes, mask: Mask) -> None:
        selected = _whole_warps(lanes, mask)
        for matrix, write in enumerate(writes):
            pair = np.zeros(selected.size, np.uint32)
            for half in (0, 1):
                addresses = element_addresses(lanes, selected, matrix, half)
                (element,) = lanes.load_shared(addresses, selected, 2, 1)
                pair |= element.astype(np.uint32) << np.uint32(16 * half)
            write(lanes, _spread(pair, selected, lanes.count), mask)

    return stmatrix if stores else ldmatrix


def _whole_warps(lanes: Lanes, mask: Mask) -> Array:
    selected = lanes.selected(mask)
    if selected.size != WARP * np.unique(lanes.warp[selected]).size:
        raise SyncError("a matrix access that not all lanes of the warp take part in")
    return selected


def _allow_access(instruction: Instruction) -> None:
    known = (*SPACES, *ORDERED, *SCOPES, *CACHING, *VECTORS)
    hints = [modifier for modifier in instruction.modifiers if HINT.match(modifier)]
    allow(instruction, (*known, *hints))


def _vector(instruction: Instruction) -> int:
    return next((VECTORS[m] for m in instruction.modifiers if m in VECTORS), 1)


def _space(instruction: Instruction) -> str:
    if instruction.has("global"):
        return "global"
    return "shared" if instruction.has("shared", "shared::cta") else "generic"


def _resolve(space: str, addresses: Array) -> tuple[str, Array]:
    """Return the space that generic addresses point to, and the addresses in it."""
    if space != "generic":
        return space, addresses
    start = int(SHARED_WINDOW)
    in_shared = addresses >= start
    if in_shared.all():
        return "shared", addresses - start
    if in_shared.any():
        raise Unsupported("one access to both global and shared memory")
    return "global", addresses


def _all_lanes(value: Array, count: int) -> Array:
    return value if np.ndim(value) else np.full(count, value)


def _spread(value: Array, selected: Array, count: int) -> Array:
    """Return values of the selected lanes as values of all lanes."""
    if selected.size == count:
        return value
    whole = np.zeros(count, value.dtype)
    whole[selected] = value
    return whole


BUILDERS: dict[str, Builder] = {
    "ld": _ld,
    "st": _st,
    "atom": _atomic,
    "red": _atomic,
    "ldmatrix": _matrix,
    "stmatrix": _matrix,
}
