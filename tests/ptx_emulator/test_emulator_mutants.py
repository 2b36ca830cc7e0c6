"""The mutants: their number, the equivalent ones, the detected ones."""

from typing import Any

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")


from tests.support.ptx_emulator import (  # noqa: E402
    GlobalMemory,
    StepLimit,
    Verdict,
    emulated,
    launch,
    load_kernel,
    survey,
)
from tests.support.ptx_emulator.liveness import Liveness  # noqa: E402
from tests.support.ptx_emulator.mutants import mutants  # noqa: E402
from tests.support.ptx_emulator.ptx_snippets import ADDRESS, module, row_norms  # noqa: E402


def test_mutants_of_a_kernel_that_the_driver_ran() -> None:
    x = torch.randn(5, 700)
    expected = x.double().norm(dim=1)

    def norms() -> torch.Tensor:
        out = torch.full((5,), float("nan"))
        row_norms[(5,)](x, out, 700, BLOCK=256, num_warps=2)
        return out.double()

    with emulated(90) as driver:
        norms()
        original = driver.launches[-1].original

        def trial(kernel: Any) -> bool:
            with driver.substituted(original, kernel):
                return torch.allclose(norms(), expected, rtol=1e-6, atol=0)

        report = survey(original, trial)
        assert not driver.substitutes
    assert report.judged > 100
    assert report.detected > 0.8
    found = report.counts
    assert found[Verdict.WRONG] and found[Verdict.RACE] and found[Verdict.MEMORY]
    assert found[Verdict.STEP_LIMIT]
    barriers = [v for mutant, v in report.verdicts if mutant.kind == "remove barrier"]
    assert Verdict.RACE in barriers
    assert set(barriers) <= {Verdict.RACE, Verdict.MEMORY, Verdict.EQUIVALENT}
    assert str(report).startswith(f"{report.judged} mutants")


PLANTED = f"""
    {ADDRESS}
    bar.sync 0;
    add.s32 %r2, %r1, 5;
    mov.b32 %r3, 1;
    mov.b32 %r3, 3;
    add.s32 %r4, %r1, %r3;
    bra $next;
    $next: st.global.b32 [%rd6], %r4;
    bra $end;
    st.global.b32 [%rd6], %r1;
    $end:
"""


def test_planted_equivalents_are_recognised() -> None:
    kernel = load_kernel(module(PLANTED))
    out = np.zeros(32, np.int32)

    def trial(mutant: Any) -> bool:
        memory = GlobalMemory()
        out[:] = -1
        launch(mutant, (1,), 32, [memory.add(out)], memory, max_steps=200)
        return out.tolist() == list(range(3, 35))

    report = survey(kernel, trial)
    equivalent = {m.before for m, v in report.verdicts if v is Verdict.EQUIVALENT}
    assert equivalent == {
        "bar.sync 0",
        "add.s32 %r2, %r1, 5",
        "mov.b32 %r3, 1",
        "bra $next",
        "st.global.b32 [%rd6], %r1",
        "ret",
    }
    assert all(trial(mutant.kernel) for mutant in mutants(kernel) if mutant.equivalent)
    assert report.survivors == []


MASKED_LOAD = f"""
    setp.lt.s32 %p1, %r1, 7;
    {ADDRESS}
    mov.u32 %r2, 0;
    @%p1 ld.global.b32 %r2, [%rd6];
    add.s32 %r3, %r2, 5;
    @%p1 st.global.b32 [%rd6], %r3;
"""


@pytest.mark.parametrize(
    ("before", "after", "is_masked"),
    [
        ("", "", True),
        ("@%p1 st", "st", False),
        ("@%p1 st", "@!%p1 st", False),
        ("add.s32 %r3, %r2, 5", "shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1", False),
        ("add.s32 %r3, %r2, 5", "setp.lt.s32 %p1, %r2, 5", False),
        ("mov.u32 %r2, 0;", "mov.u32 %r2, 0; add.s32 %r4, %r2, 1;", False),
        ("@%p1 ld", "ld", False),
    ],
)
def test_what_lanes_that_do_not_load_hold(before: str, after: str, is_masked: bool) -> None:
    """It has no effect if it reaches only stores under the load's predicate."""
    kernel = load_kernel(module(MASKED_LOAD.replace(before, after, 1)))
    found = {m.equivalent for m in mutants(kernel) if m.before == "mov.u32 %r2, 0"}
    assert ("seen by no lane that stores" in found) == is_masked


@pytest.mark.parametrize(("selector", "is_equivalent"), [("0x9b31U", True), ("0x3214U", False)])
def test_a_source_of_prmt_that_is_not_taken(selector: str, is_equivalent: bool) -> None:
    body = f"prmt.b32 %r4, %r1, 0, {selector}; {ADDRESS} st.global.b32 [%rd6], %r4;"
    found = [m for m in mutants(load_kernel(module(body))) if m.after.startswith("prmt.b32")]
    of_source = [m for m in found if f", {selector}" in m.after]
    assert of_source and all(bool(m.equivalent) == is_equivalent for m in of_source)


def test_a_difference_whose_sign_nobody_reads() -> None:
    for reader, is_unread in (
        ("abs.f32 %r5, %r4", True),
        ("mul.f32 %r5, %r4, %r4", True),
        ("mul.f32 %r5, %r4, %r3", False),
    ):
        body = f"sub.f32 %r4, %r2, %r3; {reader}; {ADDRESS} st.global.b32 [%rd6], %r5;"
        found = [m for m in mutants(load_kernel(module(body))) if m.kind == "swap sources"]
        assert [bool(m.equivalent) for m in found] == [is_unread]


def test_which_mutants_there_are() -> None:
    body = f"""
        setp.lt.s32 %p1, %r1, 7;
        sub.f32 %r2, %r3, 0f3F800000;
        shfl.sync.bfly.b32 %r4, %r2, 16, 31, -1;
        bar.sync 0;
        {ADDRESS}
        @%p1 st.global.b32 [%rd6+8], %r4;
    """
    found = list(mutants(load_kernel(module(body))))
    assert all(mutant.before != mutant.after for mutant in found)
    changes = {(mutant.kind, mutant.after) for mutant in found}
    assert changes >= {
        ("delete", ""),
        ("remove barrier", ""),
        ("other comparison", "setp.le.s32 %p1, %r1, 7"),
        ("swap sources", "setp.lt.s32 %p1, 7, %r1"),
        ("constant", "setp.lt.s32 %p1, %r1, 8"),
        ("constant", "setp.lt.s32 %p1, %r1, 6"),
        ("sub -> add", "add.f32 %r2, %r3, 0f3F800000"),
        ("swap sources", "sub.f32 %r2, 0f3F800000, %r3"),
        ("constant", "sub.f32 %r2, %r3, 0f40000000"),
        ("shuffle offset", "shfl.sync.bfly.b32 %r4, %r2, 8, 31, -1"),
        ("drop predicate", "st.global.b32 [%rd6+8], %r4"),
        ("negate predicate", "@!%p1 st.global.b32 [%rd6+8], %r4"),
        ("address", "@%p1 st.global.b32 [ %rd6 + 12 ], %r4"),
    }


def test_what_is_called_equivalent_survives_when_run() -> None:
    x = torch.randn(3, 300)
    with emulated(90) as driver:
        for warps in (1, 4):
            out = torch.empty(3)
            row_norms[(3,)](x, out, 300, BLOCK=128, num_warps=warps)
            original = driver.launches[-1].original
            equivalent = [mutant for mutant in mutants(original) if mutant.equivalent]
            assert equivalent
            for mutant in equivalent:
                again = torch.empty(3)
                with driver.substituted(original, mutant.kernel):
                    row_norms[(3,)](x, again, 300, BLOCK=128, num_warps=warps)
                assert torch.equal(out, again), mutant.description


def test_a_mutant_that_never_ends_is_stopped_soon() -> None:
    x, out = torch.randn(1, 300), torch.empty(1)
    with emulated(90) as driver:
        row_norms[(1,)](x, out, 300, BLOCK=128)
        original = driver.launches[-1].original
        driver.launches.clear()
        endless = load_kernel(module("$again: bra $again;", parameters=5, threads=128))
        with driver.substituted(original, endless), pytest.raises(StepLimit) as error:
            row_norms[(1,)](x, out, 300, BLOCK=128)
    assert int(str(error.value).split()[2]) < 5000


def test_liveness_of_predicated_writes_and_loops() -> None:
    body = f"""
        mov.b32 %r2, 0;
        mov.b32 %r3, 0;
        setp.lt.s32 %p1, %r1, 4;
        @%p1 mov.b32 %r3, 9;
        $loop: add.s32 %r2, %r2, 1;
        setp.lt.s32 %p2, %r2, 5;
        @%p2 bra $loop;
        {ADDRESS} st.global.b32 [%rd6], %r3;
    """
    kernel = load_kernel(module(body))
    facts = Liveness(kernel)
    dead = {i.text for position, i in enumerate(kernel.instructions) if facts.is_dead(position)}
    assert dead == set()
