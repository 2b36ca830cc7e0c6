"""The conversion to and from eight bits, which every backend has to reproduce."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.ops import reference
from tests.support.ptx_emulator import emulated

FLOAT8 = torch.float8_e4m3fn


def tokens_at_ties(dtype: torch.dtype) -> Tensor:
    """Return tokens whose elements lie next to the middle between two codes."""
    generator = torch.Generator().manual_seed(0)
    maximum = 1 + torch.rand(4096, 1, generator=generator)
    codes = torch.randint(-127, 127, (4096, 31), generator=generator) + 0.5
    if dtype == FLOAT8:
        codes = codes.remainder(8).add(8) * 2.0 ** torch.randint(
            -9, 5, codes.shape, generator=generator
        )
    middle = (codes.double() * maximum / reference.LARGEST[dtype]).float()
    return torch.cat([middle.minimum(maximum).maximum(-maximum), maximum], dim=1)


@pytest.mark.parametrize("dtype", [torch.int8, FLOAT8])
def test_the_factor_is_divided_once(dtype: torch.dtype) -> None:
    p = tokens_at_ties(dtype)
    maximum = p.abs().amax(dim=1, keepdim=True)
    # A double quotient of floats, rounded to float, is the correctly rounded quotient.
    factor = (reference.LARGEST[dtype] / maximum.double()).float()
    numbers = p * factor
    expected = (numbers.round() if dtype == torch.int8 else numbers).to(dtype)
    assert torch.equal(reference.quantize(p, dtype)[0].float(), expected.float())


@pytest.mark.parametrize("dtype", [torch.int8, FLOAT8])
def test_rounding_is_within_the_bound(dtype: torch.dtype) -> None:
    p = tokens_at_ties(dtype)
    stored, scale = reference.quantize(p, dtype)
    off = (p.double() - (stored.float() * scale).double()).abs()
    half_a_step = scale.double() / 2
    if dtype == FLOAT8:
        half_a_step = torch.maximum(p.double().abs() / 16, scale.double() / 1024)
    assert (off <= half_a_step * (1 + 2**-13)).all()


def test_a_large_maximum_without_denormals() -> None:
    p = torch.tensor([[3e38, 1e38, -2e38]])
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        stored, _ = reference.quantize(p, torch.int8)
    finally:
        torch.set_flush_denormal(False)
    assert stored.tolist() == [[127, 42, -85]]


@pytest.mark.parametrize("holds", ["nothing", "previous"])
@pytest.mark.parametrize("dtype", [torch.int8, FLOAT8])
def test_eight_bits_need_a_scale(dtype: torch.dtype, holds: str) -> None:
    with pytest.raises(ValueError, match="expected a scale"):
        ops.distance_update(
            torch.zeros(1, 1, 1, 4).to(dtype), torch.ones(1, 1, 1, 4), slot_holds=holds
        )


@pytest.mark.parametrize("op", ["previous", "x_out", "residual_update", "conditional_add"])
def test_float8_without_a_scale_is_read_as_float8(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, other = torch.randn(2, 1, 2, 4, 16)
    other = other.to(FLOAT8)

    def run(backend: str) -> Tensor:
        monkeypatch.setenv("ADACACHE_BACKEND", backend)
        slot = x.clone()
        if op == "previous":
            sums = ops.distance_update(slot, x, previous=[other], slot_holds="nothing")
            return sums.sum(1)
        if op == "x_out":
            ops.distance_update(slot, other, slot_holds="nothing")
        elif op == "residual_update":
            ops.residual_update(slot, other, x)
        else:
            on = torch.ones(1, dtype=torch.int32)
            slot = ops.conditional_add(other, [x], torch.ones(1), on)
        return slot.float()

    with emulated(90):
        torch.testing.assert_close(run("triton"), run("reference"))
