"""The emulator's checks: it refuses broken kernels and accepts correct ones."""

from contextlib import nullcontext

import numpy as np
import pytest

triton = pytest.importorskip("triton")


from tests.support.ptx_emulator import (  # noqa: E402
    EmulatorError,
    MemoryFault,
    Order,
    RaceError,
    StepLimit,
    SyncError,
    Trap,
    UninitialisedRead,
)
from tests.support.ptx_emulator.ptx_snippets import ADDRESS, module, run  # noqa: E402

PUT_SHARED = (
    "mov.u32 %r2, cells; shl.b32 %r3, %r1, 2; add.s32 %r2, %r2, %r3; st.shared.b32 [%r2], %r1;"
)


NEXT_SHARED = "add.s32 %r4, %r1, 1; and.b32 %r4, %r4, 63; shl.b32 %r4, %r4, 2;"
GET_NEXT = f"{NEXT_SHARED} mov.u32 %r5, cells; add.s32 %r5, %r5, %r4; ld.shared.b32 %r6, [%r5];"


def test_a_correct_exchange_through_shared_memory_passes() -> None:
    out = np.zeros(64, np.int32)
    body = f"{PUT_SHARED} bar.sync 0; {GET_NEXT} {ADDRESS} st.global.b32 [%rd6], %r6;"
    run(module(body, shared=256, threads=64), out, threads=64)
    assert out.tolist() == [*range(1, 64), 0]


BROKEN: dict[str, tuple[str, type[EmulatorError], str]] = {
    "a store past the end": (
        f"{ADDRESS} st.global.b32 [%rd6+4], %r1;",
        MemoryFault,
        r"out of bounds in 1 lanes.*buffer0\+256 of 256 bytes",
    ),
    "a load before the start": (
        f"{ADDRESS} ld.global.b32 %r2, [%rd6+-4];",
        MemoryFault,
        "out of bounds",
    ),
    "a misaligned vector": (
        f"{ADDRESS} ld.global.v2.b32 {{%r2, %r3}}, [%rd1+4];",
        MemoryFault,
        "misaligned global load of 8 bytes",
    ),
    "shared memory past its end": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2+256], %r1;",
        MemoryFault,
        "shared store of 4 bytes out of bounds",
    ),
    "misaligned shared memory": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2+2], %r1;",
        MemoryFault,
        "misaligned shared",
    ),
    "shared memory never written": (
        f"{GET_NEXT}",
        UninitialisedRead,
        "shared memory never written",
    ),
    "a missing barrier": (
        f"{PUT_SHARED} {GET_NEXT}",
        RaceError,
        "reads what program 0, thread",
    ),
    "a missing barrier before the next round": (
        f"{PUT_SHARED} bar.sync 0; {GET_NEXT} {PUT_SHARED}",
        RaceError,
        "overwrites what program 0, thread .* read",
    ),
    "a warp barrier between warps": (
        f"{PUT_SHARED} bar.warp.sync -1; {GET_NEXT}",
        RaceError,
        "reads what",
    ),
    "different values to one shared byte": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2], %r1;",
        RaceError,
        "different values",
    ),
    "one global byte from all threads": (
        "st.global.b32 [%rd1], 1;",
        RaceError,
        "lanes of one store write the same byte",
    ),
    "threads of a program through global memory": (
        f"{ADDRESS} st.global.b32 [%rd6], %r1; ld.global.b32 %r2, [%rd1];",
        RaceError,
        "buffer0 at byte 0",
    ),
    "two stores by different threads": (
        "setp.eq.s32 %p1, %r1, 0; @%p1 st.global.b32 [%rd1], 7; "
        "setp.eq.s32 %p2, %r1, 9; @%p2 st.global.b32 [%rd1], 7;",
        RaceError,
        "thread 9 overwrites what program 0, thread 0 wrote",
    ),
    "a part of what another thread wrote": (
        f"{ADDRESS} st.global.b32 [%rd6], %r1; add.s64 %rd7, %rd6, 0; "
        "setp.eq.s32 %p1, %r1, 3; @%p1 ld.global.b8 %rs1, [%rd1+17];",
        RaceError,
        "byte 17: program 0, thread 3 reads what program 0, thread 4 wrote",
    ),
    "a shuffle that a lane misses": (
        "setp.lt.s32 %p1, %r1, 5; @%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;",
        SyncError,
        "shfl.sync.bfly",
    ),
    "a warp barrier that lanes miss": (
        "setp.lt.s32 %p1, %r1, 5; @%p1 bar.warp.sync -1;",
        SyncError,
        "warp barrier",
    ),
    "a shuffle by an uninvited lane": (
        "shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xff;",
        SyncError,
        "member mask does not name",
    ),
    "a barrier that some warps miss": (
        "setp.lt.s32 %p1, %r1, 32; @%p1 bra $skip; bar.sync 0; bra $end; $skip: bar.sync 0; $end:",
        SyncError,
        "deadlock",
    ),
    "an endless loop": ("$again: bra $again;", StepLimit, "endless loop"),
    "a trap": ("trap;", Trap, "trap"),
    "a wild address": ("ld.global.b32 %r2, [%rd9];", MemoryFault, "out of bounds|misaligned"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_refused(name: str) -> None:
    body, error, message = BROKEN[name]
    ptx = module(body, shared=256, threads=64)
    with pytest.raises(error, match=message):
        run(ptx, np.zeros(64, np.int32), threads=64, max_steps=1000)


def test_without_checks_only_bounds_and_alignment_are_checked() -> None:
    out = np.zeros(64, np.int32)
    races = module(f"{PUT_SHARED} {GET_NEXT}", shared=256, threads=64)
    run(races, out, threads=64, check=False)
    with pytest.raises(MemoryFault):
        run(module(f"{ADDRESS} st.global.b32 [%rd6+4], %r1;"), out[:32], check=False)


def test_global_memory_never_written() -> None:
    body = f"{ADDRESS} setp.lt.s32 %p1, %r1, 31; @%p1 st.global.b32 [%rd6], %r1; bar.sync 0;"
    run(module(body), np.zeros(32, np.int32), written=False)
    with pytest.raises(UninitialisedRead, match="buffer0"):
        run(module(f"{body} ld.global.b32 %r2, [%rd6];"), np.zeros(32, np.int32), written=False)


PROGRAM_ADDRESS = "mov.u32 %r9, %ctaid.x; mul.wide.u32 %rd8, %r9, 4; add.s64 %rd8, %rd1, %rd8;"
FIRST_THREAD = "setp.eq.s32 %p1, %r1, 0;"


@pytest.mark.parametrize("order", [None, "reverse", 3])
@pytest.mark.parametrize("programs", [3, 1000])
@pytest.mark.parametrize(
    ("body", "races"),
    [
        (f"{PROGRAM_ADDRESS} {FIRST_THREAD} @%p1 st.global.b32 [%rd8], %r9;", False),
        (f"{FIRST_THREAD} @%p1 st.global.b32 [%rd1], 7;", True),
        (
            f"{PROGRAM_ADDRESS} {FIRST_THREAD} @%p1 st.global.b32 [%rd8], %r9; bar.sync 0; "
            "ld.global.b32 %r2, [%rd1];",
            True,
        ),
        (
            f"{PROGRAM_ADDRESS} ld.global.b32 %r2, [%rd1]; bar.sync 0; {FIRST_THREAD}"
            "@%p1 st.global.b32 [%rd8], %r9;",
            True,
        ),
    ],
)
def test_programs_must_not_share_what_they_write(
    body: str, races: bool, programs: int, order: Order
) -> None:
    out = np.full(programs, -1, np.int32)
    with pytest.raises(RaceError, match="program") if races else nullcontext():
        run(module(body), out, programs=programs, order=order)
    assert races or out.tolist() == list(range(programs))


def test_a_barrier_orders_the_threads_of_a_program() -> None:
    for barrier, allowed in (("bar.sync 0;", True), ("bar.warp.sync -1;", True), ("", False)):
        body = f"{ADDRESS} st.global.b32 [%rd6], %r1; {barrier} ld.global.b32 %r2, [%rd1+8];"
        with nullcontext() if allowed else pytest.raises(RaceError):
            run(module(body), np.zeros(32, np.int32))


@pytest.mark.parametrize(("lanes", "warps"), [(64, 2), (40, 2), (20, 1), (1, 1)])
def test_instructions_are_counted_by_warp(lanes: int, warps: int) -> None:
    body = f"{ADDRESS} setp.lt.s32 %p1, %r1, {lanes}; @%p1 ld.global.b32 %r2, [%rd6];"
    execution = run(module(body, threads=64), np.zeros(64, np.int32), threads=64)
    traffic = execution.traffic["buffer0"]
    assert (traffic.loads, traffic.load_instructions) == ({4: lanes}, {4: warps})


@pytest.mark.parametrize("members", [32, 20])
def test_float_reductions_of_a_warp(members: int) -> None:
    values = np.random.default_rng(16).normal(size=32).astype(np.float32)
    values[3] = np.nan
    numbers = values[:members][~np.isnan(values[:members])]
    for operation, expected in {
        "max": numbers.max(),
        "min": numbers.min(),
        "max.abs": np.abs(numbers).max(),
        "max.NaN": np.float32(np.nan),
    }.items():
        data = values.copy()
        named = (1 << members) - 1
        body = f"""
            {ADDRESS} ld.global.b32 %r2, [%rd6]; setp.lt.s32 %p1, %r1, {members};
            @%p1 redux.sync.{operation}.f32 %r3, %r2, {named};
            @%p1 st.global.b32 [%rd6], %r3;
        """
        run(module(body), data)
        assert np.array_equal(data[:members], np.full(members, expected), equal_nan=True)


def test_diverged_lanes_meet_again() -> None:
    body = f"""
        mov.b32 %r2, 0;
        $loop: add.s32 %r2, %r2, 2;
        setp.lt.s32 %p1, %r2, %r1;
        @%p1 bra $loop;
        shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;
        {ADDRESS} st.global.b32 [%rd6], %r3;
    """
    out = np.zeros(32, np.int32)
    run(module(body), out)
    counted = [max(2, lane + lane % 2) for lane in range(32)]
    assert out.tolist() == [counted[lane ^ 1] for lane in range(32)]
