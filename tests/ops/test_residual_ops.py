"""residual_update and conditional_add: the bits of reference.py for every dtype and layout."""

from __future__ import annotations

import math

import pytest
import torch

from adacache_kernels import ops
from adacache_kernels.ops import reference
from tests.support.op_checks.operands import (
    DTYPES,
    LAYOUTS,
    SHAPES,
    Layout,
    assert_same_bits,
    assert_tail_untouched,
    contiguous,
    padded,
    permuted,
    random,
)


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
        reference.conditional_add(expected, x, residuals, [None] * count, coefficients, flags)
        start = x.clone()
        assert_same_bits(ops.conditional_add(x, residuals, coefficients, flags), expected)
        assert_same_bits(x, start)
        assert ops.conditional_add(x, residuals, coefficients, flags, out=x) is x
        assert_same_bits(x, expected)
        assert_tail_untouched(base, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_out", LAYOUTS)
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (1, 3, 5, 7), (2, 3, 0, 4)], ids=str)
def test_the_result_may_have_another_layout(
    shape: tuple[int, ...], of_x: Layout, of_out: Layout, dtype: torch.dtype
) -> None:
    """The op writes all elements of `out` and nothing else, not even parts of x's memory."""
    (base, x), (base_of_out, out) = random(shape, dtype, of_x), random(shape, dtype, of_out)
    before, residual = base.clone(), random(shape, dtype, contiguous)[1]
    for flag in (0, 1):
        flags, expected = torch.tensor([flag], dtype=torch.int32), torch.empty_like(x)
        reference.conditional_add(expected, x, [residual], [None], torch.tensor([0.7]), flags)
        out.fill_(torch.nan)
        assert ops.conditional_add(x, [residual], torch.tensor([0.7]), flags, out=out) is out
        assert_same_bits(out, expected)
        assert_same_bits(base, before)
        assert_tail_untouched(base_of_out, out)


def test_a_result_without_out_is_new_and_contiguous() -> None:
    x = torch.randn(2, 5, 3).transpose(1, 2)
    expanded = torch.randn(1, 3, 1).expand(2, 3, 5)
    for tensor in (x, expanded):
        before = tensor.clone()
        on = torch.ones(1, dtype=torch.int32)
        out = ops.conditional_add(tensor, [torch.ones(2, 3, 5)], torch.ones(1), on)
        assert out.is_contiguous()
        assert torch.equal(out, before + 1)
        assert torch.equal(tensor, before)


def test_a_residual_that_is_not_added_is_not_read() -> None:
    x, nan = torch.zeros(2, 3), torch.full((2, 3), torch.nan)
    off = torch.zeros(1, dtype=torch.int32)
    out = ops.conditional_add(x, [nan], torch.ones(1), off)
    assert torch.equal(out, torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (2, 1, 2, 3, 4)], ids=str)
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    slot, x_out, x_in = (torch.randn(shape) for _ in range(3))
    expected = x_out - x_in
    ops.residual_update(slot, x_out, x_in)
    assert torch.equal(slot, expected)
    on = torch.ones(1, dtype=torch.int32)
    assert torch.equal(ops.conditional_add(slot, [x_out], torch.ones(1), on), expected + x_out)
