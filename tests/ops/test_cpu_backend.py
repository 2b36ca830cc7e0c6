"""The compiled residual_update, conditional_add and decide in every instruction set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from adacache_kernels import _native, ops
from tests.support.op_checks.compiled_ops import (
    BEST,
    METRICS,
    SHAPES,
    conditional_add,
    residual_update,
)
from tests.support.op_checks.operands import DTYPES, assert_same_bits, memory_layouts

_C: Any = _native.module()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_rounding(instruction_set: str, dtype: torch.dtype) -> None:
    """All values of the type and all midpoints, with their neighbours on either side."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    nan = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    finite = values[values.isfinite()].sort().values
    between = (finite[1:] + finite[:-1]) / 2
    below, above = (torch.nextafter(between, torch.tensor(s * math.inf)) for s in (-1, 1))
    beyond = torch.tensor([65504.0, 65519.99, 65520.0, 1e6, 3.3961e38, 1e-45, math.inf])
    x = torch.cat([values, between, below, above, beyond, -beyond, nan.view(torch.float32)])
    slot = torch.empty(x.shape, dtype=dtype)
    residual_update(slot, x, torch.zeros_like(x))
    assert_same_bits(slot, (x - 0).to(dtype))
    for back in (torch.empty_like(x), torch.empty_like(slot)):
        residual_update(back, slot, torch.zeros_like(slot))
        assert_same_bits(back, slot.float().to(back.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_residual_update(instruction_set: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    start, x_out, x_in = (torch.randn(shape).to(dtype) for _ in range(3))
    expected = (x_out.float() - x_in.float()).to(dtype)
    for slot, out, other in zip(
        memory_layouts(start), memory_layouts(x_out), memory_layouts(x_in), strict=True
    ):
        residual_update(slot, out, other, threads=2)
        assert_same_bits(slot, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_conditional_add(
    instruction_set: str, shape: tuple[int, ...], dtype: torch.dtype, count: int
) -> None:
    start, *residuals = (torch.randn(shape).to(dtype) for _ in range(1 + count))
    coefficients = torch.randn(count)
    total = start.float()
    for coefficient, residual in zip(coefficients, residuals, strict=True):
        total = total + coefficient * residual.float()
    for x, *others in zip(*map(memory_layouts, (start, *residuals)), strict=True):
        conditional_add(x, others, coefficients, flag=0, threads=2)
        assert_same_bits(x, start)
        conditional_add(x, others, coefficients, flag=-1, threads=2)
        assert_same_bits(x, total.to(dtype))
    # x is in memory of one layout, out and the residuals in memory of another.
    layouts = [list(memory_layouts(start)), [x.zero_() for x in memory_layouts(start)]]
    for x, out in zip(layouts[0], reversed(layouts[1]), strict=True):
        for flag, expected in ((0, start), (7, total.to(dtype))):
            conditional_add(x, residuals, coefficients, flag, threads=2, out=out)
            assert_same_bits(out, expected)
            assert_same_bits(x, start)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_copy_keeps_every_bit(instruction_set: str, dtype: torch.dtype) -> None:
    """Also those of a NaN, which an addition would change."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(2, 1, 4, -1)
    x, out = bits.view(dtype), torch.empty(bits.shape, dtype=dtype)
    conditional_add(x, [out.clone()], torch.ones(1), flag=0, threads=2, out=out)
    assert torch.equal(out.view(torch.int16), bits)


def test_out_has_the_dtype_of_x(instruction_set: str) -> None:
    x, out = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="out must have the dtype of x"):
        conditional_add(x, [x], torch.ones(1), out=out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_conditional_add_of_eight_bits(
    instruction_set: str, stored: torch.dtype, scaled: bool, dtype: torch.dtype
) -> None:
    codes = torch.arange(-128, 128).to(torch.int8).repeat(6).view(2, 3, 1, 256)
    residual, plain = codes.view(stored), torch.randn(codes.shape).to(dtype)
    x, coefficients = torch.randn(codes.shape).to(dtype), torch.tensor([0.3, -1.7])
    scale = torch.rand(2, 3, 1, 1) if scaled else None
    value = residual.float() * (scale if scaled else 1)
    expected = x.float() + coefficients[0] * value + coefficients[1] * plain.float()
    conditional_add(x, [residual, plain], coefficients, scales=[scale, None], threads=2)
    assert_same_bits(x, expected.to(dtype))


def test_each_row_has_its_scale(instruction_set: str) -> None:
    codes = torch.randint(-128, 128, (2, 3, 5, 37), dtype=torch.int8)
    scale = torch.rand(5, 3, 2, 1).transpose(0, 2)
    for layout in memory_layouts(codes):
        x = torch.zeros(codes.shape)
        conditional_add(x, [layout], torch.ones(1), scales=[scale], threads=2)
        assert torch.equal(x, codes.float() * scale)


def decide(state: Tensor, sums: Tensor, book: Tensor, videos: int, motions: int) -> None:
    settings = _C.DecideSettings(
        metric=METRICS["l1"],
        apply_moreg=True,
        moreg_a=0.385,
        moreg_b=2,
        moreg_d=1.0,
        mograd_mul=10.0,
        uses_mean=False,
    )
    addresses = state.data_ptr(), sums.data_ptr(), sums.shape, book.data_ptr(), book.shape[1]
    _C.decide(
        *addresses,
        settings=settings,
        step=3,
        has_previous=True,
        in_window=True,
        sequence=7,
        videos=videos,
        motions=motions,
    )


def test_decide_sums_over_batch_and_partials() -> None:
    sums, book = torch.rand(2, 3, 4, 5), torch.tensor([[0.1, 0.2], [3.0, 2.0]])
    states = []
    for partial in (sums, sums.double().sum(2, keepdim=True).float()):
        state = ops.new_state("cpu")
        decide(state, partial, book, videos=1, motions=0)
        states.append(state)
    assert torch.allclose(states[0], states[1], rtol=1e-6)
    assert states[0].isfinite().all()


@pytest.mark.parametrize(
    ("videos", "has_motions", "message"),
    [
        (0, True, "videos must divide the rows of the sums"),
        (2, True, "videos must divide the rows of the sums"),
        (3, False, "several videos need motions"),
    ],
)
def test_decide_refuses_videos_that_do_not_fit(
    videos: int, has_motions: bool, message: str
) -> None:
    sums, book, state = torch.rand(2, 3, 4, 5), torch.rand(2, 2), ops.new_state("cpu")
    scores = torch.ones(3)
    with pytest.raises(ValueError, match=message):
        decide(state, sums, book, videos, scores.data_ptr() if has_motions else 0)


def test_instruction_sets() -> None:
    names = _C.instruction_sets()
    assert names[0] == "baseline"
    assert {*names} <= {*_C.build_config()["instruction_sets"]}
    assert _C.build_config()["instruction_set"] == BEST
    with pytest.raises(ValueError, match="instruction set sse9 is not one"):
        _C.set_instruction_set("sse9")
