"""The Triton kernels, compiled for three architectures, executed as PTX, against reference.py.

The emulator checks bounds, alignment, races, barriers and reads of unwritten memory, see
tests/support/ptx_emulator. Every case runs twice, with the programs in both orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.kernels.launch_config import MAX_STRIDE, Config
from adacache_kernels.ops import reference
from adacache_kernels.ops import triton_backend as gpu
from adacache_kernels.ops import triton_launch as launch
from tests.ops import test_ops
from tests.ops.test_ops import (
    assert_same_bits,
    assert_tail_untouched,
    contiguous,
    misaligned,
    padded,
    permuted,
    random,
    strided_channels,
)
from tests.ops.test_reference import assert_decision
from tests.support.oracles.ops_in_float64 import exact_decision
from tests.support.ptx_emulator import EmulatorDriver, UninitialisedRead, emulated

ARCHITECTURES = [80, 90, 100]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
EPS = torch.finfo(torch.float32).eps


def video_tokens(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the tokens of a video between those of a text and of a history, in one sequence."""
    batch, frames, tokens, channels = shape
    base = torch.full((batch, 3 + frames * tokens + 2, channels), test_ops.SENTINEL, dtype=dtype)
    return base, base[:, 3 : 3 + frames * tokens].unflatten(1, (frames, tokens))


@dataclass(frozen=True)
class Case:
    """A shape, and the memory layout of the written tensor and of the others.

    `special` puts NaN and infinity among the numbers. `programs` is the number of programs that
    share a sample in distance_update, if it is not the number of tiles.
    """

    name: str
    shape: tuple[int, ...]
    written: test_ops.Layout = contiguous
    read: test_ops.Layout = contiguous
    special: bool = False
    programs: int | None = None


CASES = [
    Case("aligned", (2, 4, 6, 64)),
    Case("several tiles, the last one short", (1, 5, 36, 64)),
    Case("one group more than two tiles", (1, 4, 129, 8)),
    Case("two tiles to the last group", (1, 4, 128, 8)),
    Case("tiles in turn", (1, 4, 36, 64), programs=2),
    Case("programs without a tile", (1, 4, 36, 64), programs=7),
    Case("frames in batch", (2, 4, 6, 64), read=padded),
    Case("tokens in batch", (2, 4, 6, 64), permuted, permuted),
    Case("two layouts", (2, 3, 5, 32), permuted, contiguous),
    Case("text and history", (2, 4, 6, 64), video_tokens, video_tokens),
    Case("two layouts, several tiles", (2, 3, 140, 32), permuted, contiguous),
    Case("odd", (1, 3, 5, 7)),
    Case("odd, tiles in turn", (1, 3, 77, 21), programs=2),
    Case("odd, programs without a tile", (2, 3, 5, 7), programs=3),
    Case("misaligned", (2, 3, 5, 64), misaligned, contiguous),
    Case("misaligned input", (2, 3, 5, 64), contiguous, misaligned),
    Case("rows of odd length", (2, 3, 4, 30), padded, padded),
    Case("every other channel", (1, 2, 3, 8), strided_channels, contiguous),
    Case("one element", (1, 1, 1, 1)),
    Case("no sample", (0, 3, 2, 8)),
    Case("no frame", (2, 0, 2, 8)),
    Case("no token", (2, 3, 0, 8)),
    Case("no channel", (2, 3, 2, 0)),
    Case("NaN and infinity", (3, 4, 6, 64), special=True),
]


@dataclass(frozen=True)
class Mode:
    """The arguments of distance_update."""

    metric: str
    slot_holds: str
    has_input: bool
    previous: int
    strides: tuple[int, ...]


MODES = [
    Mode("l1", "previous", True, 0, (1,)),
    Mode("l2", "previous", False, 1, ()),
    Mode("cosine", "previous", True, 2, (1, 3)),
    Mode("l2", "nothing", True, 3, (1,)),
    Mode("cosine", "nothing", False, 0, ()),
]


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")


@pytest.fixture(params=ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
def driver(request: pytest.FixtureRequest, on_triton: None) -> Iterator[EmulatorDriver]:
    with emulated(request.param, guard_views=True) as driver:
        yield driver


def in_both_orders(
    driver: EmulatorDriver, op: Callable[..., Tensor | None], written: Tensor, *arguments: Any
) -> Tensor | None:
    """Run an op twice from the same start, with its programs in both orders; compare the bits."""
    before = written.clone()
    results = []
    for order in (None, "reverse"):
        driver.order = order
        written.copy_(before)
        sums = op(written, *arguments)
        results.append((written.clone(), sums))
    (first, first_sums), (second, second_sums) = results
    assert_same_bits(second, first)
    if first_sums is not None:
        assert_same_bits(second_sums, first_sums)
    return first_sums


def operands(case: Case, dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the buffer and the view that is written, and `count` other tensors."""
    base, written = random(case.shape, dtype, case.written)
    others = [random(case.shape, dtype, case.read)[1] for _ in range(count)]
    if case.special:
        others[0][0, 1, 2, 3] = math.nan
        others[0][1, 1, 2, 5] = math.inf
    return base, written, others


def summation_error(case: Case, terms: Tensor) -> Tensor:
    """Return a bound of the error of float32 sums over the same terms.

    A thread adds 8 elements of each frame of its tiles, at most 4 in a test, and 16 groups at most.
    A program then adds its 2^10 groups as a tree of 10 levels. Each addition is off by at most half
    an EPS of a sum that is no larger than the sum of the magnitudes. reference.py rounds once more.
    """
    additions = 8 + 4 * case.shape[1] * 16 + 10 + 1
    return additions * EPS / 2 * terms


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.metric}-{mode.slot_holds}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distance_update(driver: EmulatorDriver, dtype: torch.dtype, mode: Mode) -> None:
    for case in CASES:
        check_distance_update(driver, dtype, mode, case)


def check_distance_update(
    driver: EmulatorDriver, dtype: torch.dtype, mode: Mode, case: Case
) -> None:
    base, slot, (x_out, x_in, *previous) = operands(case, dtype, 2 + mode.previous)
    terms = mode.previous + (mode.slot_holds == "previous")
    coefficients = torch.randn(terms) if mode.previous else None
    arguments = (x_out, x_in if mode.has_input else None, previous, coefficients, mode.strides)
    expected_slot, indices = (
        slot.clone(),
        (
            mode.metric,
            mode.slot_holds,
        ),
    )
    old = [tensor.float() for tensor in [*previous, slot.clone()][:terms]]
    expected = reference.distance_update(expected_slot, *arguments, *indices)[:, 0]
    partials = gpu.partials if case.programs is None else lambda *_: case.programs
    with mock.patch.object(gpu, "partials", partials):
        sums = in_both_orders(
            driver, ops.distance_update, slot, *arguments, mode.metric, mode.slot_holds
        )
    assert_same_bits(slot, expected_slot)
    assert_tail_untouched(base, slot)
    total = sums.double().sum(dim=1)
    magnitudes = expected.double()
    if mode.metric == "cosine" and terms:  # The only sum with terms of both signs.
        forecast = reference._forecast(old, coefficients)
        products = (forecast * expected_slot.float()).double().abs()
        magnitudes[:, 0] = products.sum(dim=(1, 2, 3))
    exact = expected.isfinite()
    error = (total - expected.double()).abs()
    assert bool((error <= summation_error(case, magnitudes))[exact].all()), case
    assert torch.equal(total.float().isnan(), expected.isnan()), case
    assert torch.equal(
        total[~exact & ~expected.isnan()].float(), expected[~exact & ~expected.isnan()]
    ), case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_residual_update(driver: EmulatorDriver, dtype: torch.dtype) -> None:
    for case in CASES:
        check_residual_update(driver, dtype, case)


def check_residual_update(driver: EmulatorDriver, dtype: torch.dtype, case: Case) -> None:
    base, slot, (x_out, x_in) = operands(case, dtype, 2)
    expected = slot.clone()
    reference.residual_update(expected, x_out, x_in)
    in_both_orders(driver, ops.residual_update, slot, x_out, x_in)
    assert_same_bits(slot, expected)
    assert_tail_untouched(base, slot)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conditional_add(driver: EmulatorDriver, dtype: torch.dtype, count: int) -> None:
    for case in CASES:
        check_conditional_add(driver, dtype, count, case)


def check_conditional_add(
    driver: EmulatorDriver, dtype: torch.dtype, count: int, case: Case
) -> None:
    for flag in (0, 1, -7):
        base, x, residuals = operands(case, dtype, count)
        arguments = torch.randn(count), torch.tensor([flag], dtype=torch.int32)
        expected = x.clone()
        reference.conditional_add(expected, residuals, [None] * count, *arguments)
        driver.launches.clear()
        in_both_orders(driver, ops.conditional_add, x, residuals, *arguments)
        assert_same_bits(x, expected)
        assert_tail_untouched(base, x)
        if flag == 0:
            touched = {name for launch in driver.launches for name in touching(launch)}
            assert touched <= {"flag"}, case


def touching(launch: Any) -> Iterator[str]:
    """Return the arguments whose memory a launch has read or written."""
    for name, traffic in launch.traffic.items():
        if traffic.bytes_loaded or traffic.bytes_stored:
            yield name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conditional_add_of_eight_bits(driver: EmulatorDriver, dtype: torch.dtype) -> None:
    for case in EIGHT_BIT_CASES:
        check_conditional_add_of_eight_bits(driver, dtype, case)


EIGHT_BIT_CASES = [
    Case("two layouts, several tiles", (2, 3, 140, 32), permuted, contiguous),
    Case("two planes", (2, 4, 6, 64), video_tokens, contiguous),
    Case("odd", (2, 3, 5, 63)),
    Case("no token", (2, 3, 0, 8)),
]


def check_conditional_add_of_eight_bits(
    driver: EmulatorDriver, dtype: torch.dtype, case: Case
) -> None:
    """Check all int8 and float8 values, in every element of a group, with scales and without."""
    base, x = random(case.shape, dtype, case.written)
    bits = [torch.randint(0, 256, case.shape, dtype=torch.uint8) for _ in range(2)]
    residuals = [bits[0].view(torch.int8), bits[1].view(torch.float8_e4m3fn)]
    scale, other = (torch.rand(*case.shape[:3], 1) for _ in range(2))
    for scales in ([scale, None], [scale, other]):
        for flag in (1, 0):
            arguments = torch.randn(2), torch.tensor([flag], dtype=torch.int32)
            expected = x.clone()
            reference.conditional_add(expected, residuals, scales, *arguments)
            in_both_orders(driver, ops.conditional_add, x, residuals, *arguments, scales)
            assert_same_bits(x, expected)
            assert_tail_untouched(base, x)
            x.copy_(torch.randn(case.shape))


NAN, INF = math.nan, math.inf
SUMS = {
    "near": [[0.3, 40.0, 50.0, 2.0, 7.0], [0.1, 30.0, 20.0, 1.0, 5.0]],
    "middle": [[9.0, 40.0, 50.0, 2.0, 7.0], [6.0, 30.0, 20.0, 3.0, 5.0]],
    "far": [[300.0, 40.0, 50.0, 2.0, 7.0], [1.0, 30.0, 20.0, 1.0, 5.0]],
    "zero denominator": [[3.0, 0.0, 0.0, 2.0, 7.0], [1.0, 0.0, 0.0, 1.0, 5.0]],
    "no motion": [[3.0, 40.0, 50.0, 0.0, 0.0], [1.0, 30.0, 20.0, 0.0, 0.0]],
    "infinite": [[INF, 40.0, 50.0, 2.0, 7.0], [1.0, 30.0, 20.0, 1.0, 5.0]],
    "not a number": [[3.0, NAN, 50.0, 2.0, NAN], [1.0, 30.0, 20.0, 1.0, 5.0]],
}
OTHER_LOCATION = [[2.0, 35.0, 45.0, 5.0, 6.0], [1.5, 25.0, 30.0, 2.5, 4.0]]


# Step, has_previous, in_window; the last computed step was 2.
SITUATIONS = [(5, True, True), (5, True, False), (2, True, True), (5, False, True)]
# Sums, partial sums of each of two samples, situation. The kernel adds 1024 at once, 8 for each
# thread. The last one is in turn each of these 8, and one of a second round.
DECISIONS = [
    *itertools.product(SUMS.values(), (1, 3), SITUATIONS),
    *((SUMS["near"], n, SITUATIONS[0]) for n in (40, 100, 180, 230, 300, 350, 420, 480, 600)),
]


@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("apply_moreg", [True, False])
def test_decide(driver: EmulatorDriver, metric: str, apply_moreg: bool) -> None:
    for decision in DECISIONS:
        check_decide(driver, metric, apply_moreg, *decision)
    check_on_a_threshold(driver, metric, apply_moreg)


def check_decide(
    driver: EmulatorDriver,
    metric: str,
    apply_moreg: bool,
    sums: list[list[float]],
    partials: int,
    situation: tuple[int, bool, bool],
) -> None:
    thresholds, rates = [0.03, 0.06, 0.125], [8.0, 4.0, 2.0]
    codebook = torch.tensor([thresholds, rates])
    step, has_previous, in_window = situation
    state = torch.tensor([3.0, 2.0, 0.5, 7.0, 9.0, 11.0, 0.25, 13.0, 0.75, 4.0])
    shares = torch.rand(partials, 1) + 0.5
    whole = torch.tensor([OTHER_LOCATION, sums])
    if metric == "cosine":  # As large as the distances of the other metrics.
        whole[..., 0] = whole[..., 1] - whole[..., 0]
    split = whole.unsqueeze(2) * (shares / shares.sum())
    expected = exact_decision(
        state.tolist(),
        split.double().sum(dim=2).tolist(),
        list(zip(thresholds, rates, strict=True)),
        step,
        metric,
        has_previous,
        apply_moreg,
        in_window,
    )
    settings = ops.DecideSettings(metric, apply_moreg)
    decide = partial(ops.decide, has_previous=has_previous, in_window=in_window)
    in_both_orders(driver, decide, state, split, codebook, settings, step)
    assert_decision(state.tolist(), expected, thresholds)
    # Float32 hides float64's rounding, except for neighbours.
    for found, exact in zip(state.tolist(), expected, strict=True):
        assert math.isnan(exact) or found == pytest.approx(exact, rel=EPS, abs=0)


def check_on_a_threshold(driver: EmulatorDriver, metric: str, apply_moreg: bool) -> None:
    """A distance of exactly 1/8 is not below it."""
    first = {"l1": 0.125, "l2": 0.125**2, "cosine": 1 - 0.125}[metric]
    sums = torch.tensor([[[[first, 1.0, 1.0, 2.0, 7.0]]]])
    state, codebook = ops.new_state("cpu"), torch.tensor([[0.125, 0.25, 0.5], [6.0, 4.0, 2.0]])
    settings = ops.DecideSettings(metric, apply_moreg)
    in_both_orders(driver, ops.decide, state, sums, codebook, settings, 1)
    assert state[ops.State.DISTANCE] == 0.125
    assert state[ops.State.RATE] == 4


def test_partial_sums_are_added_in_float64(driver: EmulatorDriver) -> None:
    """2^24 + 1 + 1 + ...: in float32, each 1 would be lost."""
    partials = torch.ones(1, 1, 2001, 3)
    partials[0, 0, 0] = 2.0**24
    state, codebook = ops.new_state("cpu"), torch.tensor([[1.5], [2.0]])
    partials[..., 1] = 2.0**24 / 2001
    ops.decide(state, partials, codebook, ops.DecideSettings(), 1)
    exact = partials[..., 0].double().sum() / partials[..., 1].double().sum()
    assert state[ops.State.DISTANCE] == exact.float()


def test_programs_take_tiles_in_turn(
    driver: EmulatorDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer programs than tiles, and more: the sums are the same."""
    slot, x_out = torch.randn(2, 3, 40, 64), torch.randn(2, 3, 40, 64)
    expected = reference.distance_update(
        slot.clone(), x_out, None, [], None, (1, 2), "l1", "previous"
    )[:, 0]
    for programs in (1, 3, 100):
        config = Config(1, 2, programs)
        monkeypatch.setattr(gpu, "distance_config", lambda *_, config=config: config)
        sums = ops.distance_update(slot.clone(), x_out, strides=(1, 2))
        assert sums.shape[1] == min(programs, 10)
        assert torch.allclose(sums.sum(1), expected, rtol=100 * EPS)


@pytest.mark.parametrize("stride", [MAX_STRIDE, MAX_STRIDE + 1, 40])
def test_long_strides(driver: EmulatorDriver, stride: int) -> None:
    """Plain torch runs if the strides exceed the registers; past the last frame, sums are zero."""
    slot, x_out = torch.randn(1, 36, 2, 8), torch.randn(1, 36, 2, 8)
    arguments = (x_out, None, [], None, (1, stride))
    expected = reference.distance_update(slot.clone(), *arguments, "l1", "previous")[:, 0]
    sums = ops.distance_update(slot, *arguments)
    assert torch.allclose(sums.sum(1), expected, rtol=100 * EPS)
    assert torch.equal(slot, x_out)
    assert len(driver.launches) == (stride != MAX_STRIDE + 1)


def test_groups_numbered_in_64_bits(
    driver: EmulatorDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planes of 2^31 groups or more need 64 bits."""
    monkeypatch.setattr(launch.kernels(), "int32", launch.kernels().int64)
    case = Case("several tiles", (1, 5, 36, 64))
    check_distance_update(driver, torch.bfloat16, MODES[0], case)
    check_residual_update(driver, torch.bfloat16, True, case)
    check_conditional_add(driver, torch.bfloat16, 2, case)


def test_offsets_beyond_32_bits(on_triton: None) -> None:
    """The second sample begins 2^31 + 64 elements after the first; only its pages are used."""
    apart = 2**31 + 64
    base = torch.empty(apart + 1024, dtype=torch.bfloat16)
    slot = base.as_strided((2, 2, 4, 64), (apart, 256, 64, 1))
    slot.copy_(torch.randn(slot.shape))
    x_out, x_in = torch.randn(slot.shape).bfloat16(), torch.randn(slot.shape).bfloat16()
    with emulated(90, check=False):
        sums = ops.distance_update(slot, x_out, x_in, strides=(1,))
        assert torch.equal(slot, (x_out.float() - x_in.float()).bfloat16())
        assert bool(sums.isfinite().all())
        expected = (slot.float() + 2.0 * x_out.float()).bfloat16()
        ops.conditional_add(slot, [x_out], torch.tensor([2.0]), torch.ones(1, dtype=torch.int32))
        assert torch.equal(slot, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_undefined_slot_is_not_read(on_triton: None, dtype: torch.dtype) -> None:
    x_out, x_in = torch.randn(2, 3, 4, 8).to(dtype), torch.randn(2, 3, 4, 8).to(dtype)
    with emulated(90) as driver:
        slot = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        ops.distance_update(slot, x_out, x_in, slot_holds="nothing", strides=(1,))
        slot = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        ops.residual_update(slot, x_out, x_in)
        slot = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        with pytest.raises(UninitialisedRead):
            ops.distance_update(slot, x_out, x_in)


def moved(driver: EmulatorDriver, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the bytes read and written of each argument in the last launch."""
    (launch,) = driver.launches
    traffic = [launch.traffic[name] for name in names]
    return [(t.bytes_loaded, t.bytes_stored) for t in traffic]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bytes_moved(on_triton: None, dtype: torch.dtype) -> None:
    """Each input is read once and each output written once, exactly.

    Partial sums, coefficients and the flag come from caches and are below 2 %.
    """
    shape = (2, 8, 256, 128)
    slot, x_out, x_in, older = (torch.randn(shape).to(dtype) for _ in range(4))
    size = slot.nbytes
    with emulated(90, check=False) as driver:
        coefficients = torch.tensor([2.0, -1.0])
        ops.distance_update(slot, x_out, x_in, [older], coefficients, (1, 2, 5))
        names = ["slot.0", "x_out.0", "x_in.0", "previous.0.0"]
        assert moved(driver, names) == [(size, size), (size, 0), (size, 0), (size, 0)]
        (launch,) = driver.launches
        assert launch.traffic["partials"].bytes_stored <= 0.02 * 5 * size
        driver.launches.clear()
        ops.residual_update(slot, x_out, x_in)
        assert moved(driver, ["slot.0", "x_out.0", "x_in.0"]) == [(0, size), (size, 0), (size, 0)]
        driver.launches.clear()
        flag = torch.ones(1, dtype=torch.int32)
        ops.conditional_add(slot, [x_out, x_in], coefficients, flag)
        names = ["x.0", "residuals.0.0", "residuals.1.0"]
        assert moved(driver, names) == [(size, size), (size, 0), (size, 0)]
        driver.launches.clear()
        quantised, scale = torch.zeros(shape, dtype=torch.int8), torch.ones(*shape[:3], 1)
        ops.conditional_add(slot, [quantised], coefficients[:1], flag, [scale])
        names = ["x.0", "residuals.0.0"]
        assert moved(driver, names) == [(size, size), (quantised.nbytes, 0)]
