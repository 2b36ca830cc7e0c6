"""Memory that the Triton kernels read and write: large offsets, unwritten slots, bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from adacache_kernels import ops
from tests.support.op_checks.kernel_cases import DTYPES
from tests.support.ptx_emulator import EmulatorDriver, UninitialisedRead, emulated


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
        two, on = torch.tensor([2.0]), torch.ones(1, dtype=torch.int32)
        assert torch.equal(ops.conditional_add(slot, [x_out], two, on), expected)
        slot.zero_()
        ops.conditional_add(expected, [x_out], -two, on, out=slot)
        assert torch.equal(slot, (expected.float() - 2.0 * x_out.float()).bfloat16())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_undefined_slot_is_not_read(on_triton: None, dtype: torch.dtype) -> None:
    x_out, x_in = torch.randn(2, 3, 4, 8).to(dtype), torch.randn(2, 3, 4, 8).to(dtype)
    with emulated(90) as driver:
        slot = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        ops.distance_update(slot, x_out, x_in, slot_holds="nothing", strides=(1,))
        slot = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        ops.residual_update(slot, x_out, x_in)
        out = driver.mark_uninitialised(torch.empty(2, 3, 4, 8, dtype=dtype))
        for flag in (0, 1):
            flags = torch.tensor([flag], dtype=torch.int32)
            ops.conditional_add(x_out, [x_in], torch.ones(1), flags, out=out)
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
        names = ["out.0", "x.0", "residuals.0.0", "residuals.1.0"]
        assert moved(driver, names) == [(0, size), (size, 0), (size, 0), (size, 0)]
        driver.launches.clear()
        ops.conditional_add(slot, [x_out, x_in], coefficients, 0 * flag)
        assert moved(driver, names) == [(0, size), (size, 0), (0, 0), (0, 0)]
        driver.launches.clear()
        quantised, scale = torch.zeros(shape, dtype=torch.int8), torch.ones(*shape[:3], 1)
        ops.conditional_add(slot, [quantised], coefficients[:1], flag, [scale])
        names = ["out.0", "x.0", "residuals.0.0"]
        assert moved(driver, names) == [(0, size), (size, 0), (quantised.nbytes, 0)]
