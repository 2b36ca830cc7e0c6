"""Exchange within a warp: shfl, vote, redux, activemask, elect."""

from collections.abc import Callable

import numpy as np

from .. import floats
from ..errors import SyncError, Unsupported
from ..lanes import WARP, Lanes
from ..operands import Read, Symbols, reader, writer
from ..parser import Instruction
from ..ptx_types import Array, Mask
from .common import Builder, Execute, allow, type_of

SHUFFLES = ("bfly", "up", "down", "idx")
VOTES = ("ballot", "any", "all", "uni")
REDUCTIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def _shfl(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("sync", *SHUFFLES))
    mode = next(m for m in instruction.modifiers if m in SHUFFLES)
    targets = instruction.operands[0].split("|")
    write = writer(symbols, targets[0], "b32")
    write_valid = writer(symbols, targets[1], "pred") if len(targets) > 1 else None
    value = reader(symbols, instruction.operands[1], "b32")
    offset = reader(symbols, instruction.operands[2], "b32")
    clamp = reader(symbols, instruction.operands[3], "b32")
    named = reader(symbols, instruction.operands[4], "b32")

    def shfl(lanes: Lanes, mask: Mask) -> None:
        _check_members(lanes, mask, named, instruction)
        source, valid = _source_lane(lanes.lane, offset(lanes), clamp(lanes), mode)
        index = np.minimum(lanes.everyone - lanes.lane + source, lanes.count - 1)
        values = np.broadcast_to(value(lanes), lanes.count)
        write(lanes, values[index], mask)
        if write_valid is not None:
            write_valid(lanes, valid, mask)

    return shfl


def _source_lane(lane: Array, offset: Array, clamp: Array, mode: str) -> tuple[Array, Array]:
    offset = offset.astype(np.int64) & 31
    clamp = clamp.astype(np.int64)
    segment, bound = (clamp >> 8) & 31, clamp & 31
    highest = (lane & segment) | (bound & ~segment)
    match mode:
        case "bfly":
            source = lane ^ offset
        case "up":
            source = lane - offset
        case "down":
            source = lane + offset
        case _:
            source = (lane & segment) | (offset & ~segment)
    valid = source >= highest if mode == "up" else source <= highest
    return np.where(valid, source, lane), valid


def _check_members(lanes: Lanes, mask: Mask, named: Read, instruction: Instruction) -> None:
    """Check that exactly the living lanes of the member mask are active."""
    if not lanes.check:
        return
    members = np.asarray(named(lanes)).astype(np.uint32)
    if mask is None and lanes.alive.all() and (members == 0xFFFFFFFF).all():
        return
    active = lanes.active(mask)
    bit = np.uint32(1) << lanes.lane.astype(np.uint32)
    here, living = _ballot(lanes, active), _ballot(lanes, lanes.alive)
    stranger = active & ((members & bit) == 0)
    if stranger.any():
        raise SyncError(f"a lane that the member mask does not name executes {instruction.text}")
    absent = active & ((members & living & ~here) != 0)
    if absent.any():
        first = np.flatnonzero(absent)[0]
        raise SyncError(
            f"only lanes {here[first]:#010x} of a warp are at {instruction.text}, "
            "which names more of them"
        )


def _ballot(lanes: Lanes, flags: Array) -> Array:
    """Return for each lane the bits of the lanes of its warp whose flag is set."""
    bits = np.where(flags, np.uint32(1) << lanes.lane.astype(np.uint32), np.uint32(0))
    warps = np.zeros(lanes.programs * lanes.warps_per_program, np.uint32)
    np.bitwise_or.at(warps, lanes.warp, bits)
    return warps[lanes.warp]


def _vote(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("sync", *VOTES))
    mode = next(m for m in instruction.modifiers if m in VOTES)
    write = writer(symbols, instruction.operands[0], "b32" if mode == "ballot" else "pred")
    flag = reader(symbols, instruction.operands[1], "pred")
    named = reader(symbols, instruction.operands[2], "b32")

    def vote(lanes: Lanes, mask: Mask) -> None:
        _check_members(lanes, mask, named, instruction)
        active = lanes.active(mask)
        yes, everyone = _ballot(lanes, active & flag(lanes)), _ballot(lanes, active)
        results = {"ballot": yes, "any": yes != 0, "all": yes == everyone}
        results["uni"] = (yes == 0) | (yes == everyone)
        write(lanes, results[mode], mask)

    return vote


def _redux(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("sync", "abs", "NaN", *REDUCTIONS))
    ptx_type = type_of(instruction)
    combine = _reduction(instruction, ptx_type)
    write = writer(symbols, instruction.operands[0], ptx_type)
    value = reader(symbols, instruction.operands[1], ptx_type)
    named = reader(symbols, instruction.operands[2], "b32")

    def redux(lanes: Lanes, mask: Mask) -> None:
        _check_members(lanes, mask, named, instruction)
        values = np.broadcast_to(value(lanes), lanes.count)
        if mask is None and lanes.geometry.threads % WARP == 0:
            by_warp = combine(values.reshape(-1, WARP))
            write(lanes, np.repeat(by_warp, WARP), mask)
            return
        active, result = lanes.active(mask), np.array(values)
        for warp in np.unique(lanes.warp[active]):
            members = active & (lanes.warp == warp)
            result[members] = combine(values[members][None, :])[0]
        write(lanes, result, mask)

    return redux


def _reduction(instruction: Instruction, ptx_type: str) -> Callable[[Array], Array]:
    """Return a function that reduces the rows of a matrix."""
    name = next(m for m in instruction.modifiers if m in REDUCTIONS)
    if ptx_type in ("u32", "s32", "b32") and not instruction.has("abs", "NaN"):
        return lambda rows: REDUCTIONS[name].reduce(rows, axis=1, dtype=rows.dtype)
    if ptx_type != "f32" or name not in ("min", "max"):
        raise Unsupported(f"redux on .{ptx_type}")
    combine = floats.minimum if name == "min" else floats.maximum

    def reduce_floats(rows: Array) -> Array:
        rows = np.abs(rows) if instruction.has("abs") else rows
        result = rows[:, 0]
        for column in range(1, rows.shape[1]):
            result = combine(result, rows[:, column])
        spoiled = instruction.has("NaN") & np.isnan(rows).any(axis=1)
        return np.where(spoiled, np.float32(np.nan), result)

    return reduce_floats


def _activemask(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ())
    write = writer(symbols, instruction.operands[0], "b32")
    return lambda lanes, mask: write(lanes, _ballot(lanes, lanes.active(mask)), mask)


def _elect(instruction: Instruction, symbols: Symbols) -> Execute:
    allow(instruction, ("sync",))
    target, predicate = instruction.operands[0].split("|")
    write, write_elected = writer(symbols, target, "b32"), writer(symbols, predicate, "pred")
    named = reader(symbols, instruction.operands[1], "b32")

    def elect(lanes: Lanes, mask: Mask) -> None:
        _check_members(lanes, mask, named, instruction)
        here = _ballot(lanes, lanes.active(mask))
        lowest = here & (~here + np.uint32(1))
        bit = np.uint32(1) << lanes.lane.astype(np.uint32)
        write(lanes, np.bitwise_count(lowest - np.uint32(1)).astype(np.uint32), mask)
        write_elected(lanes, lowest == bit, mask)

    return elect


BUILDERS: dict[str, Builder] = {
    "shfl": _shfl,
    "vote": _vote,
    "redux": _redux,
    "activemask": _activemask,
    "elect": _elect,
}
