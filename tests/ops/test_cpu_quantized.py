"""The compiled update of slots of eight bits: the bits of reference.py in every instruction set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adacache_kernels import _native, ops
from adacache_kernels.ops import reference
from tests.support.op_checks.compiled_ops import BEST, SUM_ERROR, distance_update
from tests.support.op_checks.operands import DTYPES, assert_same_bits, memory_layouts
from tests.support.oracles.ops_in_float64 import exact_sums

_C: Any = _native.module()
STORED = [torch.int8, torch.float8_e4m3fn]
SHAPES = [
    (1, 1, 1, 1),
    (3, 2, 4, 1),
    (2, 3, 5, 7),
    (1, 3, 2, 4099),  # odd
    (2, 17, 9, 32),
    (1, 2, 70, 1000),  # several tasks
    (1, 3, 2, 8320),  # too long for prefetching the next row
    (0, 3, 2, 4),
    (2, 0, 2, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 0),
]


def update(
    slot: Tensor,
    scale: Tensor | None,
    x_out: Tensor,
    x_in: Tensor | None = None,
    previous: Sequence[Tensor] = (),
    scales: Sequence[Tensor | None] = (),
    coefficients: Tensor | None = None,
    strides: Sequence[int] = (),
    metric: str = "l1",
    holds: str = "previous",
    threads: int = 1,
) -> Tensor:
    """Run the compiled op without the fallback to the reference."""
    return distance_update(
        slot,
        x_out,
        x_in,
        previous,
        coefficients,
        strides,
        ops.METRICS.index(metric),
        ops.SLOT_HOLDS.index(holds),
        threads,
        scale,
        scales,
    )


def read(stored: Tensor, scale: Tensor | None) -> Tensor:
    return stored.float().clone() if scale is None else stored.float() * scale


def expected_sums(
    old: Tensor,
    new: Tensor,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: str,
    holds: str,
) -> tuple[Tensor, Tensor]:
    """Return the sums in float64, and the sums of the terms' magnitudes, of float32 tensors."""
    terms = [*previous, *([old] if holds == "previous" else [])]
    c = None
    for i, term in enumerate(terms):
        product = term if coefficients is None else coefficients[i] * term
        c = product if c is None else c + product
    return exact_sums(None if c is None else c.double(), new, tuple(strides), metric)


def assert_sums(found: Tensor, sums: Tensor, magnitudes: Tensor) -> None:
    assert bool(((found - sums).abs() <= SUM_ERROR * magnitudes).all())


def random_stored(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return a random residual as a slot of that dtype, with its scale if it has eight bits."""
    values = torch.randn(shape)
    return reference.quantize(values, dtype) if dtype in STORED else (values.to(dtype), None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_slot_of_eight_bits(
    instruction_set: str, shape: tuple[int, ...], stored: torch.dtype, dtype: torch.dtype
) -> None:
    modes = itertools.product(ops.METRICS, ("nothing", "previous"), range(4))
    for number, (metric, holds, count) in enumerate(modes):
        x_out, x_in = (torch.randn(shape).to(dtype) for _ in range(2))
        slot, scale = random_stored(shape, stored)
        assert scale is not None
        others = [random_stored(shape, stored) for _ in range(count)]
        previous, scales = [s for s, _ in others], [own for _, own in others]
        terms = count + (holds == "previous")
        coefficients = None if terms < 2 and number % 2 else torch.randn(terms)
        strides = [(), (1,), (1, 2, 7)][number % 3]
        has_input = number % 2 == 0
        old, values = read(slot, scale), [read(*other) for other in others]
        residual = x_out.float() - x_in.float() if has_input else x_out.float()
        found = update(
            slot, scale, x_out, x_in if has_input else None, previous, scales, coefficients,
            strides, metric, holds, threads=1 + number % 3,
        )  # fmt: skip
        new_slot, new_scale = reference.quantize(residual, stored)
        assert_same_bits(slot, new_slot)
        assert_same_bits(scale, new_scale)
        new = read(new_slot, new_scale)
        expected = expected_sums(old, new, values, coefficients, strides, metric, holds)
        assert_sums(found, *expected)


@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 4, 3, 160)], ids=str)
def test_any_dtypes_together(instruction_set: str, shape: tuple[int, ...], metric: str) -> None:
    formats = [*DTYPES, *STORED]
    for slot_dtype, first, second in itertools.product(formats, formats, STORED):
        x_out, x_in = torch.randn(shape).half(), torch.randn(shape).bfloat16()
        slot, scale = random_stored(shape, slot_dtype)
        others = [random_stored(shape, first), random_stored(shape, second)]
        old, values = read(slot, scale), [read(*other) for other in others]
        coefficients, strides = torch.tensor([1.5, -0.5, 0.75]), (2, 1)
        residual = x_out.float() - x_in.float()
        previous, scales = [s for s, _ in others], [own for _, own in others]
        operands = (x_out, x_in, previous, scales, coefficients, strides, metric)
        found = update(slot, scale, *operands)
        if scale is None:
            new_slot, new_scale = residual.to(slot_dtype), None
        else:
            new_slot, new_scale = reference.quantize(residual, slot_dtype)
            assert_same_bits(scale, new_scale)
        assert_same_bits(slot, new_slot)
        new = read(new_slot, new_scale)
        expected = expected_sums(old, new, values, coefficients, strides, metric, "previous")
        assert_sums(found, *expected)


def test_a_slot_in_full_precision_against_eight_bits(instruction_set: str) -> None:
    for dtype, stored in itertools.product(DTYPES, STORED):
        start, x_out, x_in = (torch.randn(2, 3, 4, 37).to(dtype) for _ in range(3))
        previous, own = random_stored(start.shape, stored)
        slot = start.clone()
        found = update(slot, None, x_out, x_in, [previous], [own], strides=(1,), holds="nothing")
        expected = (x_out.float() - x_in.float()).to(dtype)
        assert_same_bits(slot, expected)
        value = read(previous, own)
        sums = expected_sums(value, expected.float(), [value], None, (1,), "l1", "nothing")
        assert_sums(found, *sums)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    "shape", [(2, 5, 33, 70), (2, 5, 33, 96), (2, 6, 140, 128), (1, 3, 2, 5000)]
)
def test_the_bits_are_the_same_however_they_are_computed(
    shape: tuple[int, ...], stored: torch.dtype
) -> None:
    x = [torch.randn(shape).bfloat16() for _ in range(2)]
    (start, start_scale), (other, own) = (random_stored(shape, stored) for _ in range(2))
    tensors = [start, start_scale, *x, other, own]
    coefficients = torch.tensor([0.75, 1.25])
    for strides, metric in [((), "l1"), ((1, 2), "l2"), ((1,), "cosine")]:
        results = []
        for name, threads in itertools.product(_C.instruction_sets(), (1, 2, 3)):
            _C.set_instruction_set(name)
            laid_out = zip(*map(memory_layouts, tensors), strict=True)
            for slot, scale, x_out, x_in, previous, own in laid_out:
                sums = update(
                    slot, scale, x_out, x_in, [previous], [own], coefficients, strides, metric,
                    threads=threads,
                )  # fmt: skip
                results.append((slot, scale, sums))
        for slot, scale, sums in results[1:]:
            assert_same_bits(slot, results[0][0])
            assert_same_bits(scale, results[0][1])
            assert_same_bits(sums, results[0][2])


@pytest.mark.parametrize("stored", STORED)
def test_every_rounding(instruction_set: str, stored: torch.dtype) -> None:
    """All numbers of the dtype and all midpoints, with their neighbours; a row in steps of one."""
    codes = torch.arange(-128, 128).to(torch.int8).view(stored).float()
    values = codes[codes.abs() <= reference.LARGEST[stored]].unique()
    between = (values[1:] + values[:-1]) / 2
    exact = torch.cat([values, between])
    near = [torch.nextafter(exact, torch.tensor(side)) for side in (-math.inf, math.inf)]
    row = torch.cat([exact, *near, torch.tensor([-0.0, 1e-45, -1e-40])])
    largest = reference.LARGEST[stored]
    row = row.clamp(-largest, largest).view(1, 1, 1, -1)
    slot, scale = torch.empty(row.shape, dtype=stored), torch.empty(1, 1, 1, 1)
    update(slot, scale, row, holds="nothing")
    assert scale.item() == 1
    rounded = row.round().to(stored) if stored == torch.int8 else row.to(stored)
    assert_same_bits(slot, rounded)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("channels", [1, 5, 32, 160, 300])
def test_rows_that_are_not_finite_and_rows_of_next_to_nothing(
    instruction_set: str, stored: torch.dtype, channels: int
) -> None:
    x = torch.randn(1, 2, 7, channels)
    last = channels - 1
    x[0, 0, 0, last], x[0, 0, 1, 0], x[0, 0, 2, last] = math.nan, math.inf, -math.inf
    x[0, 0, 3], x[0, 0, 4] = 0.0, -0.0
    x[0, 0, 5] *= 2.0**-120
    x[0, 0, 6] *= 1e-44
    x[0, 1, :4] = x[0, 1, :4].clamp(-1, 1) * torch.tensor([3.4e38, 1e38, 1e-30, 2e-31])[:, None]
    slot, scale = torch.empty(x.shape, dtype=stored), torch.empty(1, 2, 7, 1)
    sums = update(slot, scale, x, strides=(1,), holds="nothing")
    new_slot, new_scale = reference.quantize(x, stored)
    assert_same_bits(slot, new_slot)
    assert_same_bits(scale, new_scale)
    value = read(slot, scale)
    assert value.isnan().all(dim=-1).flatten().tolist() == [True] * 3 + [False] * 11
    assert not value[0, 0, 3:5].any()
    assert sums.isnan().tolist() == [[False] * 3 + [True, True]]


def test_a_nan_stays_in_its_sample(instruction_set: str) -> None:
    x, (slot, scale) = torch.randn(2, 3, 4, 5), random_stored((2, 3, 4, 5), torch.int8)
    x[0, 1, 2, 3] = torch.nan
    other, own = random_stored(x.shape, torch.int8)
    slot[1, 0, 0], scale[1, 0, 0] = 0, math.inf  # A token of the other sample, NaN at first.
    sums = update(slot, scale, x, None, [other], [own], torch.ones(2), (1,))
    assert sums.isnan().tolist() == [
        [True, False, False, True, True],
        [True, True, False, False, False],
    ]


@pytest.mark.parametrize("stored", STORED)
def test_infinite_factors_do_not_make_nan_of_the_padding(
    instruction_set: str, stored: torch.dtype
) -> None:
    for factor, size in [(math.inf, 1.0), (1.0, math.inf)]:
        slot = torch.ones(1, 1, 1, 5).to(stored)
        scale = torch.full((1, 1, 1, 1), size)
        sums = update(slot, scale, torch.ones(slot.shape), coefficients=torch.tensor([factor]))
        assert sums.tolist() == [[math.inf, math.inf, 0.0]]


@pytest.mark.parametrize("stored", STORED)
def test_the_stated_bound_of_the_error(stored: torch.dtype) -> None:
    """In float64, with the documented bounds: half a scale, or |p| / 16 and scale / 1024."""
    x = torch.randn(2, 3, 50, 1152) * torch.logspace(-20, 20, 50)[:, None]
    slot, scale = torch.empty(x.shape, dtype=stored), torch.empty(2, 3, 50, 1)
    update(slot, scale, x, holds="nothing")
    error = (x.double() - slot.double() * scale.double()).abs()
    half = scale.double().expand(x.shape) / 2
    e4m3 = torch.maximum(x.double().abs() / 16, scale.double() / 1024)
    bound = half if stored == torch.int8 else e4m3
    assert bool((error <= bound * (1 + 2**-20)).all())
    assert (error / bound).max() > 0.93  # in float8 at most 16 / 17


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_floats(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, limit)) for limit in (2, 3, 3, 70))
    stored = data.draw(st.sampled_from(STORED))
    numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
    sparse = st.one_of(st.just(0.0), st.floats(-8, 8, width=32), numbers)
    pool = torch.tensor(data.draw(st.lists(sparse, min_size=1, max_size=40)))
    x = pool[torch.randint(len(pool), shape)]
    _C.set_instruction_set(data.draw(st.sampled_from(_C.instruction_sets())))
    slot, scale = torch.empty(shape, dtype=stored), torch.empty((*shape[:-1], 1))
    update(slot, scale, x, holds="nothing", threads=data.draw(st.integers(1, 3)))
    _C.set_instruction_set(BEST)
    new_slot, new_scale = reference.quantize(x, stored)
    assert_same_bits(slot, new_slot)
    assert_same_bits(scale, new_scale)


@pytest.mark.parametrize("stored", STORED)
def test_nothing_beside_a_row_is_written(instruction_set: str, stored: torch.dtype) -> None:
    for channels in (1, 31, 32, 33, 160, 200):
        slot = torch.full((1, 2, 3, channels + 5), 7, dtype=torch.int8)
        scale = torch.full((1, 2, 3, 3), 7.0)
        x = torch.randn(1, 2, 3, channels)
        codes = slot.view(stored)[..., 2:-3]
        update(codes, scale[..., 1:2], x, strides=(1,), holds="nothing")
        for rest in (slot[..., :2], slot[..., -3:], scale[..., :1], scale[..., 2:]):
            assert bool((rest == 7).all())
        assert_same_bits(codes, reference.quantize(x, stored)[0])


def test_the_op_takes_the_compiled_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "distance_update", None)
    for stored in STORED:
        slot, scale = random_stored((2, 3, 4, 8), stored)
        x, other = torch.randn(slot.shape), random_stored(slot.shape, stored)
        ops.distance_update(slot, x, scale=scale)
        ops.distance_update(x.clone(), x, None, [other[0]], previous_scales=[other[1]],
                            slot_holds="nothing")  # fmt: skip


def test_wrong_arguments() -> None:
    x, codes = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="only if it has eight bits"):
        update(codes, None, x)
    with pytest.raises(ValueError, match="only if it has eight bits"):
        update(x.clone(), x, x)
    with pytest.raises(ValueError, match="one entry for each of previous"):
        update(codes, x.clone(), x, None, [codes], [None, None])
