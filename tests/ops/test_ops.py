"""The ops: the bits of reference.py for every dtype and layout; torch.compile and fake tensors."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from adacache_kernels import AdaCacheWarning, _native, ops
from adacache_kernels.ops import reference, registration
from adacache_kernels.ops import triton_backend as gpu
from adacache_kernels.ops import triton_launch as launch
from adacache_kernels.ops.decide_settings import DecideStep, flatten
from adacache_kernels.ops.native_views import takes
from tests.support.oracles.ops_in_float64 import exact_forecast
from tests.support.ptx_emulator import emulated

SETTINGS = ops.DecideSettings()
EPS = torch.finfo(torch.float32).eps
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    (2, 4, 6, 8),
    (1, 3, 5, 7),
    (1, 1, 1, 1),
    (3, 2, 1, 1),
    (1, 2, 2, 1029),  # longer than one pass of the kernels, and odd
    (0, 3, 2, 4),
    (2, 0, 2, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 0),
]
SENTINEL = 12345.0

Layout = Callable[[tuple[int, ...], torch.dtype], tuple[Tensor, Tensor]]


def contiguous(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((math.prod(shape),), SENTINEL, dtype=dtype)
    return base, base.view(shape)


def misaligned(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((math.prod(shape) + 2,), SENTINEL, dtype=dtype)
    return base, base[1:-1].view(shape)


def padded(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((*shape[:-1], shape[-1] + 3), SENTINEL, dtype=dtype)
    return base, base[..., : shape[-1]]


def permuted(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, frames, tokens, channels = shape
    base = torch.full((batch, tokens, frames, channels), SENTINEL, dtype=dtype)
    return base, base.transpose(1, 2)


def strided_channels(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((*shape[:-1], 2 * shape[-1]), SENTINEL, dtype=dtype)
    return base, base[..., ::2]


LAYOUTS: list[Layout] = [contiguous, misaligned, padded, permuted, strided_channels]


def random(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> tuple[Tensor, Tensor]:
    base, view = layout(shape, dtype)
    view.copy_(torch.randn(shape))
    return base, view


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.element_size()]
    actual, expected = (
        t.masked_fill(nan, 0).contiguous().view(integer) for t in (actual, expected)
    )
    assert torch.equal(actual, expected)


def assert_tail_untouched(base: Tensor, view: Tensor) -> None:
    touched = torch.zeros_like(base, dtype=torch.bool)
    touched.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    assert bool((base[~touched] == SENTINEL).all())


def assert_same_sums(actual: Tensor, expected: Tensor, terms: Tensor) -> None:
    """Compare sums of the same terms; the CPU adds eight terms in float32."""
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    assert bool(((actual - expected).abs() <= 2**-21 * terms).all())


def random_modes() -> Iterator[tuple[str, str, bool, int]]:
    """Yield metric, content of the slot, True for an x_in, and the number of previous residuals."""
    return itertools.product(ops.METRICS, ops.SLOT_HOLDS, [True, False], range(4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_distance_update(shape: tuple[int, ...], layout: Layout, dtype: torch.dtype) -> None:
    for metric, slot_holds, has_input, count in random_modes():
        base, slot = random(shape, dtype, layout)
        _, x_out = random(shape, dtype, permuted)
        x_in = random(shape, dtype, padded)[1] if has_input else None
        previous = [random(shape, dtype, layout)[1] for _ in range(count)]
        terms = count + (slot_holds == "previous")
        coefficients = torch.randn(terms) if count else None
        arguments = (x_out, x_in, previous, coefficients, (1, 2, 7))
        expected_slot = slot.clone()
        old = [tensor.float() for tensor in (*previous, slot)][:terms]
        expected = reference.distance_update(expected_slot, *arguments, metric, slot_holds)
        sums = ops.distance_update(slot, *arguments, metric, slot_holds)
        assert_same_bits(slot, expected_slot)
        assert_tail_untouched(base, slot)
        magnitudes = expected[:, 0].clone()
        if metric == "cosine" and terms:  # The only sum with terms of both signs.
            forecast = exact_forecast(old, coefficients)
            magnitudes[:, 0] = (forecast * expected_slot.double()).abs().sum(dim=(1, 2, 3))
        assert_same_sums(sums[:, 0], expected[:, 0], magnitudes)


@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES, DTYPES, DTYPES)), ids=str)
def test_dtypes_may_differ(dtypes: tuple[torch.dtype, ...]) -> None:
    slot, x_out, x_in = (torch.randn(1, 3, 4, 5).to(dtype) for dtype in dtypes)
    for slot_holds in ops.SLOT_HOLDS:
        previous = [] if slot_holds == "previous" else [x_in]
        expected_slot, arguments = slot.clone(), (x_out, x_in, previous, torch.ones(1), (1,))
        expected = reference.distance_update(expected_slot, *arguments, "l1", slot_holds)
        sums = ops.distance_update(slot, *arguments, "l1", slot_holds)
        assert_same_bits(slot, expected_slot)
        assert_same_sums(sums, expected, expected)
        slot.normal_()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_uninitialised_slot_is_not_read(dtype: torch.dtype) -> None:
    slot = torch.full((1, 2, 3, 4), torch.nan, dtype=dtype)
    x_out, x_in = torch.randn(1, 2, 3, 4).to(dtype), torch.randn(1, 2, 3, 4).to(dtype)
    sums = ops.distance_update(slot, x_out, x_in, strides=(1,), slot_holds="nothing")
    assert torch.equal(slot, (x_out.float() - x_in.float()).to(dtype))
    assert sums[0, 0, :3].tolist() == [0.0, 0.0, 0.0]
    assert bool(sums.isfinite().all())


def test_all_sums_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    for shape in SHAPES:
        x = torch.randn(shape)
        sums = ops.distance_update(x.clone(), x, strides=(1, 2, 9), metric="l2")
        assert bool(sums.isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_stays_in_its_sample(dtype: torch.dtype) -> None:
    slot, x_out = torch.randn(2, 3, 4, 5).to(dtype), torch.randn(2, 3, 4, 5).to(dtype)
    x_out[0, 1, 2, 3] = torch.nan
    sums = ops.distance_update(slot, x_out, strides=(1,))[:, 0]
    assert_same_bits(slot, x_out)
    assert sums[0].isnan().tolist() == [True, False, False, True, True]
    assert bool(sums[1].isfinite().all())


def test_sums_have_the_same_bits_each_time_and_in_each_layout() -> None:
    shape = (2, 5, 33, 70)
    values = [torch.randn(shape) for _ in range(3)]
    results = []
    for layout in (contiguous, contiguous, misaligned, padded, permuted):
        slot, x_out, x_in = (layout(shape, torch.float32)[1].copy_(value) for value in values)
        results.append(ops.distance_update(slot, x_out, x_in, strides=(1, 2), metric="cosine"))
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_rounding(dtype: torch.dtype) -> None:
    """All values of the type and all midpoints, with their neighbours on either side."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    values = values[values.isfinite()].sort().values
    between = (values[1:] + values[:-1]) / 2
    below, above = (torch.nextafter(between, torch.tensor(s * math.inf)) for s in (-1, 1))
    beyond = torch.tensor([65504.0, 65519.99, 65520.0, 1e6, 3.3961e38, math.inf, math.nan])
    x = torch.cat([values, between, below, above, beyond, -beyond])
    slot = torch.empty(x.shape, dtype=dtype)
    ops.residual_update(slot, x, torch.zeros_like(x))
    assert_same_bits(slot, x.to(dtype))
    back = torch.empty_like(x)
    ops.residual_update(back, slot, torch.zeros_like(slot))
    assert_same_bits(back, slot.float())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_residual_update(shape: tuple[int, ...], layout: Layout, dtype: torch.dtype) -> None:
    base, slot = random(shape, dtype, layout)
    (_, x_out), (_, x_in) = random(shape, dtype, padded), random(shape, dtype, permuted)
    expected = slot.clone()
    reference.residual_update(expected, x_out, x_in)
    ops.residual_update(slot, x_out, x_in)
    assert_same_bits(slot, expected)
    assert_tail_untouched(base, slot)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_conditional_add(
    shape: tuple[int, ...], layout: Layout, dtype: torch.dtype, count: int
) -> None:
    coefficients = torch.randn(2 * count)[::2]
    for flag in (0, 1, -1):
        base, x = random(shape, dtype, layout)
        residuals = [random(shape, dtype, contiguous)[1] for _ in range(count)]
        expected = x.clone()
        flags = torch.tensor([flag], dtype=torch.int32)
        reference.conditional_add(expected, residuals, [None] * count, coefficients, flags)
        ops.conditional_add(x, residuals, coefficients, flags)
        assert_same_bits(x, expected)
        assert_tail_untouched(base, x)


def test_a_residual_that_is_not_added_is_not_read() -> None:
    x, nan = torch.zeros(2, 3), torch.full((2, 3), torch.nan)
    ops.conditional_add(x, [nan], torch.ones(1), torch.zeros(1, dtype=torch.int32))
    assert torch.equal(x, torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (2, 1, 2, 3, 4)], ids=str)
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    slot, x_out, x_in = (torch.randn(shape) for _ in range(3))
    expected = x_out - x_in
    ops.residual_update(slot, x_out, x_in)
    assert torch.equal(slot, expected)
    ops.conditional_add(slot, [x_out], torch.ones(1), torch.ones(1, dtype=torch.int32))
    assert torch.equal(slot, expected + x_out)


def test_float64_keeps_its_precision() -> None:
    slot, x_out, x_in = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(3))
    ops.distance_update(slot, x_out, x_in)
    assert torch.equal(slot, x_out - x_in)


def test_new_state_computes_the_first_step() -> None:
    state = ops.new_state("cpu")
    assert state[ops.State.NEXT_STEP] == 1
    sums, codebook = torch.zeros(1, 2, 1, 3), torch.tensor([[0.1], [4.0]])
    ops.decide(state, sums, codebook, ops.DecideSettings(), 1, has_previous=False)
    assert state[ops.State.FLAGS] == ops.Flag.NO_PREVIOUS
    assert state[ops.State.NEXT_STEP] == 2


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5, 8.0, 13.0, -3.0, 1000.0])
def test_any_exponent_of_the_motion_score(exponent: float) -> None:
    state = ops.new_state("cpu")
    sums, codebook = torch.tensor([[[[1.0, 2.0, 0.0, 3.0, 8.0]]]]), torch.tensor([[0.1], [4.0]])
    settings = ops.DecideSettings(apply_moreg=True, moreg_b=exponent, moreg_d=2)
    ops.decide(state, sums, codebook, settings, 1, in_window=True)
    expected = (0.375 / 0.385) ** exponent / 2
    assert math.isclose(state[ops.State.MOTION], expected, rel_tol=2 * EPS)


def arguments_of_each_op() -> list[tuple[str, tuple[Any, ...]]]:
    slot, x_out, x_in = (torch.randn(2, 3, 4, 5) for _ in range(3))
    one = torch.ones(1, dtype=torch.int32)
    decision = (
        ops.new_state("cpu"),
        torch.rand(2, 2, 3, 5),
        torch.tensor([[0.1, 0.2], [3.0, 2.0]]),
    )
    clock, ones = torch.tensor([3.0, 1.0, 1.0]), torch.ones(2)
    codes, scale = torch.ones(2, 3, 4, 5, dtype=torch.int8), torch.ones(2, 3, 4, 1)
    quantised = [codes, x_out]
    moreg, l2 = ops.DecideSettings(apply_moreg=True), ops.DecideSettings("l2")
    mean = ops.DecideSettings(apply_moreg=True, batch="mean")
    return [
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [], None, [1, 2], "l1", "previous", None, []),
        ),
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [x_in], torch.ones(2), [1, 2], "l1", "previous", None, []),
        ),
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [x_in], torch.ones(1), [], "l2", "nothing", None, []),
        ),
        (
            "distance_update",
            (slot.bfloat16(), x_out.bfloat16(), None, [], None, [], "cosine", "nothing", None, []),
        ),
        ("distance_update", (codes, x_out, x_in, [], None, [1], "l1", "previous", scale, [])),
        (
            "distance_update",
            (
                codes,
                x_out,
                None,
                [codes.clone()],
                None,
                [],
                "l1",
                "nothing",
                scale,
                [scale.clone()],
            ),
        ),
        ("residual_update", (slot.clone(), x_out, x_in)),
        ("conditional_add", (slot.clone(), [x_out, x_in], [None, None], torch.ones(2), one)),
        ("conditional_add", (slot.half(), [x_out.half()], [None], torch.ones(1), 0 * one)),
        ("conditional_add", (slot, quantised, [torch.ones(2, 3, 4, 1), None], torch.ones(2), one)),
        ("decide", (*decision, *flatten(moreg, DecideStep(3, in_window=True)))),
        ("decide", (*decision, *flatten(l2, DecideStep(3, has_previous=False, sequence=7)))),
        ("decide", (*decision, *flatten(moreg, DecideStep(0, sequence=7, clock=clock)))),
        ("decide", (*decision, *flatten(mean, DecideStep(3, videos=2, motions=ones)))),
        ("begin_step", (clock.clone(), torch.zeros(2, dtype=torch.int32), decision[0], 3, 9, 1, 4)),
    ]


@pytest.mark.parametrize("case", range(len(arguments_of_each_op())))
def test_opcheck(case: int) -> None:
    name, arguments = arguments_of_each_op()[case]
    opcheck(getattr(torch.ops.adacache, name).default, arguments)


@pytest.mark.parametrize(
    "name", ["distance_update", "residual_update", "conditional_add", "decide", "begin_step"]
)
def test_other_devices_run_the_reference(name: str) -> None:
    for device in ("XPU", "MPS", "PrivateUse1"):
        assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"adacache::{name}", device)


def a_step(slot: Tensor, x_out: Tensor, x_in: Tensor, state: Tensor, codebook: Tensor) -> Tensor:
    sums = ops.distance_update(slot, x_out, x_in, strides=(1, 2), metric="l2")
    settings = ops.DecideSettings("l2", apply_moreg=True)
    ops.decide(state, sums.unsqueeze(0), codebook, settings, 3, in_window=True)
    ops.residual_update(slot, x_out, x_in)
    ops.conditional_add(x_out, [slot], torch.ones(1), torch.ones(1, dtype=torch.int32))
    return sums


def arguments_of_a_step() -> list[Tensor]:
    tensors = [torch.randn(2, 4, 3, 5) for _ in range(3)]
    return [*tensors, ops.new_state("cpu"), torch.tensor([[0.1, 0.2], [3.0, 2.0]])]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str) -> None:
    eager = arguments_of_a_step()
    compiled = [argument.clone() for argument in eager]
    expected = a_step(*eager)
    actual = torch.compile(a_step, fullgraph=True, backend=backend)(*compiled)
    for a, b in zip([actual, *compiled], [expected, *eager], strict=True):
        assert_same_bits(a, b)


def test_meta_and_fake_tensors() -> None:
    meta = [argument.to("meta") for argument in arguments_of_a_step()]
    sums = ops.distance_update(*meta[:3], strides=(1, 2))
    assert (sums.device.type, sums.shape, sums.dtype) == ("meta", (2, 1, 7), torch.float32)
    ops.decide(meta[3], sums[None], meta[4], SETTINGS, 3)
    ops.residual_update(*meta[:3])
    with FakeTensorMode() as mode:
        fake = a_step(*(mode.from_tensor(argument) for argument in arguments_of_a_step()))
    assert fake.shape == (2, 1, 7)


def test_fake_cuda_tensors() -> None:
    """torch.compile traces these on a machine without a GPU: one partial sum for each program."""
    torch._C._ensureCUDADeviceGuardSet()
    with FakeTensorMode(), torch.device("cuda"):
        arguments = [torch.empty(2, 4, 300, 512, dtype=torch.bfloat16) for _ in range(3)]
        sums = a_step(*arguments, torch.empty(10), torch.empty(2, 2))
    # A small sample: 300 * 512 columns; a program takes 64 groups of 8.
    assert (sums.device.type, sums.shape) == ("cuda", (2, 300, 7))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_on_triton(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    torch._dynamo.reset()
    eager = arguments_of_a_step()
    compiled = [argument.clone() for argument in eager]
    with emulated(90):
        expected = a_step(*eager)
        actual = torch.compile(a_step, fullgraph=True, backend=backend)(*compiled)
    for a, b in zip([actual, *compiled], [expected, *eager], strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("case", range(len(arguments_of_each_op())))
def test_opcheck_on_triton(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    name, arguments = arguments_of_each_op()[case]
    with emulated(90):
        opcheck(getattr(torch.ops.adacache, name).default, arguments)


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "cuda")
    with pytest.raises(ValueError, match="ADACACHE_BACKEND is 'cuda', expected one of auto, tri"):
        ops.residual_update(torch.zeros(2), torch.zeros(2), torch.zeros(2))


def test_without_triton_the_reference_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    for cached in (launch.kernels, launch.has_triton):
        cached.cache_clear()
    slot, x_out = torch.randn(2, 3, 300, 64), torch.randn(2, 3, 300, 64)
    with pytest.warns(AdaCacheWarning, match="needs? Triton 3.6 or newer"):
        sums = ops.distance_update(slot.clone(), x_out, strides=(1,))
    expected = reference.distance_update(slot, x_out, None, [], None, (1,), "l1", "previous")
    # As many partial sums as the kernel makes; all but the first are zero.
    assert sums.shape[1] == gpu.partials(slot, (1,)) > 1
    assert torch.equal(sums.sum(dim=1), expected.sum(dim=1))
    for cached in (launch.kernels, launch.has_triton):
        cached.cache_clear()


def test_kernels_know_what_they_cannot_take() -> None:
    assert takes(torch.randn(2, 3), torch.randn(3, 1).T[:1], torch.randn(()))
    assert not takes(torch.randn(2, 3).T)
    assert not takes(torch.randn(2, dtype=torch.float64))
    assert not takes(torch.randn(1, 1, 1, 1, 2))


def test_a_missing_extension_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adacache_kernels._C", None)
    monkeypatch.delattr("adacache_kernels._C")
    _native.module.cache_clear()
    with pytest.raises(ImportError, match=r"pip install"):
        ops.residual_update(torch.zeros(2), torch.zeros(2), torch.zeros(2))


ONE = torch.ones(1)
FLAG = torch.ones(1, dtype=torch.int32)
X, Y = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
SUMS = torch.zeros(1, 1, 1, 3)
BOOK = torch.tensor([[0.1], [2.0]])
MOREG = ops.DecideSettings(apply_moreg=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.distance_update(X, Y[0]), ValueError, r"x_out has shape \(2, 3, 4\)"),
        (lambda: ops.distance_update(X[0], Y[0]), ValueError, "expected 4 dimensions"),
        (lambda: ops.distance_update(X, X, strides=(1, 0)), ValueError, r"strides is \(1, 0\)"),
        (lambda: ops.distance_update(X, X, metric="l3"), ValueError, "metric is 'l3'"),
        (lambda: ops.distance_update(X, X.int()), TypeError, r"x_out is torch\.int32"),
        (lambda: ops.distance_update(X, X.to("meta")), ValueError, "x_out is on meta"),
        (lambda: ops.distance_update(X[:, :1].expand(1, 5, 3, 4), X), ValueError, "x_out has"),
        (lambda: ops.distance_update(X, Y, None, [Y] * 4), ValueError, "4 previous residuals"),
        (lambda: ops.distance_update(X, Y, None, [Y]), ValueError, "one for each of 2 residuals"),
        (lambda: ops.distance_update(X, Y, None, [], ONE.expand(2)), ValueError, "has shape"),
        (lambda: ops.distance_update(X, Y, slot_holds="all"), ValueError, "slot_holds is 'all'"),
        (lambda: ops.distance_update(X, Y, X), ValueError, "slot .* overlaps x_in"),
        (
            lambda: ops.distance_update(X[:, :1], Y[:, :1], None, [X[:, 0:1]], ONE.expand(2)),
            ValueError,
            r"overlaps previous\[0\]",
        ),
        (lambda: ops.residual_update(X, X, Y), ValueError, "slot .* overlaps x_out"),
        (
            lambda: ops.conditional_add(X, [Y, X], ONE.expand(2), FLAG),
            ValueError,
            r"x .* overlaps residuals\[1\]",
        ),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG.to("meta")), ValueError, "flag is on meta"),
        (lambda: ops.conditional_add(X, [Y.to(torch.int8)], ONE, FLAG), ValueError, "a scale"),
        (lambda: ops.conditional_add(X, [Y.int()], ONE, FLAG), TypeError, "expected int8 or"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, [None, None]), ValueError, "2 scales"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG, [Y]), ValueError, r"scales\[0\] has shape"),
        (lambda: ops.residual_update(X[:, :1].expand(X.shape), X, X), ValueError, "is expanded"),
        (lambda: ops.residual_update(X, X, X[..., :2]), ValueError, "x_in has shape"),
        (lambda: ops.conditional_add(X, [], ONE[:0], FLAG), ValueError, "0 residuals"),
        (lambda: ops.conditional_add(X, [Y] * 5, ONE, FLAG), ValueError, "5 residuals"),
        (lambda: ops.conditional_add(X, [Y, Y], ONE, FLAG), ValueError, "coefficients has shape"),
        (lambda: ops.conditional_add(X, [Y], ONE.double(), FLAG), TypeError, "coefficients is"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG.long()), TypeError, "flag is torch.int64"),
        (lambda: ops.conditional_add(X, [Y], ONE, FLAG[:0]), ValueError, "flag has shape"),
        (lambda: ops.decide(X, X[0], BOOK, SETTINGS, 1), ValueError, r"sums has shape \(2, 3, 4\)"),
        (lambda: ops.decide(ONE, SUMS, BOOK, SETTINGS, 1), ValueError, "state has shape"),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS, BOOK[0], SETTINGS, 1),
            ValueError,
            "codebook has shape",
        ),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS.double(), BOOK, SETTINGS, 1),
            TypeError,
            "sums is",
        ),
        (
            lambda: ops.decide(ops.new_state("cpu"), SUMS, BOOK, MOREG, 1, in_window=True),
            ValueError,
            "give distance_update frame strides",
        ),
        (lambda: ops.DecideSettings("l3"), ValueError, "metric is 'l3', expected one of 'l1'"),
        (lambda: ops.DecideSettings(batch="each"), ValueError, "batch is 'each', expected one of"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not X.any(), "something was written"


class Noted(TorchDispatchMode):
    """A mode that records the ops that torch's dispatcher runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_the_dispatcher_is_left_out_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode, gradients and tracing see every op; without them, no op uses the dispatcher."""
    direct: list[str] = []
    run = registration._direct["residual_update", "cpu"]

    def noted(*arguments: Any) -> None:
        direct.append("residual_update")
        run(*arguments)

    monkeypatch.setitem(registration._direct, ("residual_update", "cpu"), noted)
    slot, x_out, x_in = (torch.randn(2, 3) for _ in range(3))
    with torch.no_grad():
        ops.residual_update(slot, x_out, x_in)
        assert direct == ["residual_update"]
        with Noted() as mode:
            ops.residual_update(slot, x_out, x_in)
        assert mode.names == ["adacache::residual_update"]
    ops.residual_update(slot, x_out, x_in)
    assert direct == ["residual_update"], "with gradients torch is asked"
    assert torch.equal(slot, x_out - x_in)
