"""Slots of eight bits: what `distance_update` stores in them, and what it compares."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adacache_kernels import _native, ops, reference

EIGHT = [torch.int8, torch.float8_e4m3fn]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    (2, 4, 6, 8),
    (1, 3, 5, 7),
    (1, 1, 1, 1),
    (3, 2, 1, 1),
    (1, 2, 3, 1029),  # longer than a group of the kernels, and odd
    (1, 5, 2, 160),
    (0, 3, 2, 4),
    (2, 0, 2, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 0),
]
METRICS = list(ops.METRICS)


def stored(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A residual of eight bits and its scales."""
    residual = torch.randn(shape)
    return reference.quantize(residual, dtype)


def both(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    x_dtype: torch.dtype = torch.float32,
    *,
    holds: str = "nothing",
    previous: int = 0,
    mixed: bool = False,
    strides: tuple[int, ...] = (),
    metric: str = "l1",
    x: Tensor | None = None,
    x_in: bool = True,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Slot, scale and sums of the op and of the reference; the sums of |terms|."""
    x_out = torch.randn(shape).to(x_dtype) if x is None else x
    x_before = torch.randn(shape).to(x_dtype) if x_in else None
    terms = previous + (holds == "previous")
    coefficients = torch.randn(terms) if terms else None
    residuals = [stored(shape, dtype) for _ in range(previous)]
    if mixed:
        residuals[0] = (torch.randn(shape).to(x_dtype), None)
    slot, scale = stored(shape, dtype)
    arguments = ([r for r, _ in residuals], coefficients, list(strides))
    found = []
    for function in (torch.ops.adacache.distance_update.default, reference.distance_update):
        mine, own = slot.clone(), scale.clone()
        sums = function(
            mine,
            x_out,
            x_before,
            *arguments,
            ops.METRICS[metric],
            ops.SLOT_HOLDS[holds],
            own,
            [s for _, s in residuals],
        )
        found.append([mine, own, sums])
    return found[0], found[1], magnitudes(found[1], metric)


def magnitudes(outcome: list[Tensor], metric: str) -> Tensor:
    """What the error of each sum is relative to: its terms are not negative but for the cosine."""
    sums = outcome[2].abs().double()
    if metric == "cosine":
        # By Cauchy and Schwarz sum|c p| is at most this.
        sums[..., 0] = (sums[..., 1] * sums[..., 2]).sqrt()
    return sums


def assert_same(seen: list[Tensor], expected: list[Tensor], sizes: Tensor) -> None:
    """The same bits in slot and scale; sums within 2^-21 of sum|terms|, as `csrc` promises, and
    the rounding of the reference's own to float32."""
    assert torch.equal(seen[0].view(torch.uint8), expected[0].view(torch.uint8))
    assert torch.equal(seen[1], expected[1])
    difference = (seen[2].double().sum(1) - expected[2].double().sum(1)).abs()
    assert (difference <= (2**-21 + 2**-23) * sizes.sum(1)).all()


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, x_dtype, dtype) -> None:
    for holds, previous in (("nothing", 0), ("previous", 0), ("previous", 2), ("nothing", 3)):
        assert_same(*both(shape, dtype, x_dtype, holds=holds, previous=previous, strides=(1, 3)))


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("strides", [(), (1,), (2, 1), (9,)])
def test_every_metric(metric, strides, dtype) -> None:
    shape = (2, 4, 5, 70)
    assert_same(*both(shape, dtype, holds="previous", strides=strides, metric=metric))
    assert_same(*both(shape, dtype, previous=2, mixed=True, strides=strides, metric=metric))
    assert_same(*both(shape, dtype, x_in=False, previous=1, strides=strides, metric=metric))


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("name", [*_native.module().instruction_sets()])
def test_every_instruction_set_and_number_of_threads(name, dtype) -> None:
    module = _native.module()
    torch.manual_seed(0)
    slot, scale = stored((2, 5, 300, 147), dtype)
    previous, previous_scale = stored(slot.shape, dtype)
    x = torch.randn(slot.shape).bfloat16()
    outcomes = []
    try:
        for own, threads in ((module.instruction_sets()[0], 1), (name, 1), (name, 3)):
            module.set_instruction_set(own)
            torch.set_num_threads(threads)
            mine, mine_scale = slot.clone(), scale.clone()
            sums = ops.distance_update(
                mine,
                x,
                previous=[previous],
                coefficients=torch.tensor([2.0, -1.0]),
                strides=(1, 2),
                scale=mine_scale,
                previous_scales=[previous_scale],
            )
            outcomes.append([mine.view(torch.uint8), mine_scale, sums])
    finally:
        module.set_instruction_set(module.instruction_sets()[-1])
        torch.set_num_threads(1)
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize("dtype", EIGHT)
def test_strided_views(dtype) -> None:
    """Frames after tokens, as the temporal blocks of Latte have them; every other token."""
    x_out, x_in = (torch.randn(3, 8, 4, 40).transpose(1, 2) for _ in range(2))
    whole = torch.zeros(3, 16, 4, 40, dtype=torch.uint8).view(dtype).transpose(1, 2)
    scales = torch.zeros(3, 16, 4, 1).transpose(1, 2)
    sums = ops.distance_update(
        whole[:, :, ::2], x_out, x_in, strides=(1,), slot_holds="nothing", scale=scales[:, :, ::2]
    )
    slot, scale = torch.zeros(3, 4, 8, 40).to(dtype), torch.zeros(3, 4, 8, 1)
    expected = reference.distance_update(slot, x_out, x_in, [], None, [1], 0, 0, scale, [])
    assert torch.equal(whole[:, :, ::2].contiguous().view(torch.uint8), slot.view(torch.uint8))
    assert torch.equal(scales[:, :, ::2], scale)
    torch.testing.assert_close(sums, expected, rtol=2**-20, atol=0)
    assert not whole[:, :, 1::2].contiguous().view(torch.uint8).any()
    assert not scales[:, :, 1::2].any()


@pytest.mark.parametrize("dtype", EIGHT)
@settings(max_examples=60, deadline=None)
@given(
    power=st.integers(-60, 60),
    channels=st.integers(1, 200),
    seed=st.integers(0, 2**31),
    sparse=st.booleans(),
)
def test_the_error_is_within_its_bound(dtype, power, channels, seed, sparse) -> None:
    """Half a scale in int8. In float8 3 bits after the leading one: |p| / 16; below the smallest
    normal number, 2^-6 scales, half of 2^-9. Each of p * (L / m), its rounded factor, and q * scale
    with its rounded scale is off by less than 2^-22 of m or of p."""
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(1, 1, 3, channels, generator=generator) * 2.0**power
    if sparse:
        residual *= torch.rand(residual.shape, generator=generator) < 0.2
    slot, scale = stored(residual.shape, dtype)
    ops.distance_update(slot, residual, slot_holds="nothing", scale=scale)
    error = (slot.double() * scale.double() - residual.double()).abs()
    bound = 0.5 * scale if dtype == torch.int8 else (residual.abs() / 16).maximum(scale / 1024)
    rounding = 2.0**-20 * residual.abs().amax(-1, keepdim=True)
    assert (error <= bound.double() + rounding + 2.0**-106).all()


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_token_that_is_not_finite_is_read_as_nan(value, dtype) -> None:
    x = torch.randn(1, 2, 3, 50)
    x[0, 1, 2, 49] = value
    seen, expected, _ = both(x.shape, dtype, x=x, x_in=False, holds="previous")
    assert torch.equal(seen[0].view(torch.uint8), expected[0].view(torch.uint8))
    assert torch.equal(seen[1], expected[1])
    slot, scale, sums = seen
    back = slot.float() * scale
    assert back[0, 1, 2].isnan().all() and back.isnan().sum() == 50
    assert not sums[0, 0, :1].isfinite().any()


@pytest.mark.parametrize("dtype", EIGHT)
@pytest.mark.parametrize("size", [0.0, 2.0**-149, 2.0**-126, 2.0**-101, 2.0**127])
def test_the_smallest_and_the_largest(size, dtype) -> None:
    x = torch.full((1, 1, 2, 33), size)
    x[0, 0, 1] *= -1
    seen, expected, sizes = both(x.shape, dtype, x=x, x_in=False)
    assert_same(seen, expected, sizes)
    error = (seen[0].double() * seen[1].double() - x.double()).abs()
    assert (error <= max(2.0**-107, size * 2**-3)).all()


def test_wrong_arguments() -> None:
    x = torch.randn(1, 2, 3, 4)
    codes, scale = torch.zeros(x.shape, dtype=torch.int8), torch.ones(1, 2, 3, 1)

    def update(slot: Tensor = codes, **others: object) -> None:
        ops.distance_update(slot, x, **{"slot_holds": "nothing", "scale": scale} | others)

    with pytest.raises(
        ValueError, match=r"slot is torch.int8, expected a scale for it; pass scale"
    ):
        update(scale=None)
    with pytest.raises(ValueError, match=r"scale has shape \(1, 2, 3, 4\), expected \(1, 2, 3, 1"):
        update(scale=torch.ones(1, 2, 3, 4))
    with pytest.raises(TypeError, match=r"scale is torch.float64, expected torch.float32"):
        update(scale=scale.double())
    with pytest.raises(TypeError, match=r"slot is torch.float32, expected int8 or float8_e4m3fn"):
        update(torch.zeros(x.shape))
    with pytest.raises(TypeError, match=r"slot is torch.uint8, expected int8 or a floating-point"):
        update(torch.zeros(x.shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r'slot_holds is "sum".*store the sum as x_out'):
        update(slot_holds="sum")
    with pytest.raises(ValueError, match=r"there are 1 previous_scales"):
        update(previous_scales=[scale])
    with pytest.raises(ValueError, match=r"previous\[0\] is torch.int8.*pass previous_scales\[0\]"):
        update(previous=[codes.clone()])
    with pytest.raises(ValueError, match=r"scale is expanded"):
        update(scale=torch.ones(1, 1, 1, 1).expand(1, 2, 3, 1))
    with pytest.raises(ValueError, match=r"scale \(bytes .* overlaps x_out"):
        update(scale=x[..., :1].view(1, 2, 3, 1))
    with pytest.raises(TypeError, match=r"slot is torch.int8.*distance_update with a scale"):
        ops.residual_update(codes, x, x.clone())
