"""distance_update: the bits of reference.py for every dtype and memory layout, and its sums."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

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
    misaligned,
    padded,
    permuted,
    random,
)
from tests.support.oracles.ops_in_float64 import exact_forecast


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


def test_float64_keeps_its_precision() -> None:
    slot, x_out, x_in = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(3))
    ops.distance_update(slot, x_out, x_in)
    assert torch.equal(slot, x_out - x_in)
