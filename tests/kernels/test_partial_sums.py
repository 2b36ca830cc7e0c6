"""Partial sums of the Triton kernels: numbers of programs, long strides, float64."""

from __future__ import annotations

import pytest
import torch

from adacache_kernels import ops
from adacache_kernels.kernels.launch_config import MAX_STRIDE, Config
from adacache_kernels.ops import reference
from adacache_kernels.ops import triton_backend as gpu
from tests.support.op_checks.kernel_cases import EPS
from tests.support.ptx_emulator import EmulatorDriver


def test_partial_sums_are_added_in_float64(emulator: EmulatorDriver) -> None:
    """2^24 + 1 + 1 + ...: in float32, each 1 would be lost."""
    partials = torch.ones(1, 1, 2001, 3)
    partials[0, 0, 0] = 2.0**24
    state, codebook = ops.new_state("cpu"), torch.tensor([[1.5], [2.0]])
    partials[..., 1] = 2.0**24 / 2001
    ops.decide(state, partials, codebook, ops.DecideSettings(), 1)
    exact = partials[..., 0].double().sum() / partials[..., 1].double().sum()
    assert state[ops.State.DISTANCE] == exact.float()


def test_any_number_of_programs(emulator: EmulatorDriver, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_long_strides(emulator: EmulatorDriver, stride: int) -> None:
    """Plain torch runs if the strides exceed the registers; past the last frame, sums are zero."""
    slot, x_out = torch.randn(1, 36, 2, 8), torch.randn(1, 36, 2, 8)
    arguments = (x_out, None, [], None, (1, stride))
    expected = reference.distance_update(slot.clone(), *arguments, "l1", "previous")[:, 0]
    sums = ops.distance_update(slot, *arguments)
    assert torch.allclose(sums.sum(1), expected, rtol=100 * EPS)
    assert torch.equal(slot, x_out)
    assert len(emulator.launches) == (stride != MAX_STRIDE + 1)
