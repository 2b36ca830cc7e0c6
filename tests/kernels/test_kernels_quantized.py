"""The kernel that stores residuals in eight bits, executed as PTX, against reference.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.kernels.launch_config import MAX_CHANNELS, RING_ELEMENTS
from adacache_kernels.ops import reference
from adacache_kernels.ops import triton_quantized as gpu_tokens
from tests.support.op_checks import kernel_checks
from tests.support.op_checks.kernel_cases import DTYPES, EPS, Case, video_tokens
from tests.support.op_checks.operands import (
    assert_same_bits,
    contiguous,
    misaligned,
    permuted,
    random,
)
from tests.support.ptx_emulator import EmulatorDriver

UNTOUCHED = 77
KERNEL = "quantized_update_kernel"
EIGHT = [torch.int8, torch.float8_e4m3fn]
CASES = [
    Case("aligned", (2, 4, 3, 64)),
    Case("several warps", (1, 2, 1, 1152)),
    Case("fewer programs than tokens", (2, 2, 7, 48), programs=2),
    Case("programs without a token", (1, 2, 3, 64), programs=5),
    Case("tokens in batch", (2, 4, 3, 64), permuted, permuted),
    Case("two layouts", (2, 3, 5, 32), permuted, contiguous),
    Case("text and history", (2, 4, 3, 64), video_tokens, video_tokens),
    Case("odd", (1, 3, 2, 37)),
    Case("one channel", (1, 3, 2, 1)),
    Case("misaligned input", (1, 3, 2, 64), contiguous, misaligned),
    Case("one element", (1, 1, 1, 1)),
    Case("no sample", (0, 3, 2, 8)),
    Case("no frame", (2, 0, 2, 8)),
    Case("no token", (2, 3, 0, 8)),
    Case("no channel", (2, 3, 2, 0)),
    Case("NaN and infinity", (3, 4, 3, 64), special=True),
]


@dataclass(frozen=True)
class Mode(kernel_checks.Mode):
    """The arguments of the update; `mixed`: one previous residual has full precision."""

    mixed: bool = False


MODES = [
    Mode("l1", "nothing", True, 0, ()),
    Mode("l1", "previous", True, 0, (1,)),
    Mode("cosine", "previous", True, 2, (1, 3)),
    Mode("l2", "nothing", False, 3, (2, 9), mixed=True),
]


@pytest.mark.parametrize(
    ("emulator", "mode"),
    [*((90, mode) for mode in MODES), (80, MODES[2]), (100, MODES[2])],
    indirect=["emulator"],
    ids=lambda value: f"{value.metric}-{value.slot_holds}" if isinstance(value, Mode) else value,
)
@pytest.mark.parametrize("eight", EIGHT, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantized_update(
    emulator: EmulatorDriver, dtype: torch.dtype, eight: torch.dtype, mode: Mode
) -> None:
    for case in CASES:
        check_quantized_update(emulator, dtype, eight, mode, case)


def stored(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the buffer and the view of a residual in eight bits, and its scales."""
    wide, view = case.written(case.shape, torch.float32)
    base = torch.full(wide.shape, UNTOUCHED, dtype=torch.uint8)
    residual = base.as_strided(view.shape, view.stride(), view.storage_offset())
    codes, scale = reference.quantize(torch.randn(case.shape), dtype)
    residual.copy_(codes.view(torch.uint8))
    return base, residual.view(dtype), scale


def around(base: Tensor, view: Tensor) -> Tensor:
    """Return the bytes of the buffer outside of the view."""
    touched = torch.zeros_like(base, dtype=torch.bool)
    touched.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    return base[~touched]


def check_quantized_update(
    emulator: EmulatorDriver, dtype: torch.dtype, eight: torch.dtype, mode: Mode, case: Case
) -> None:
    base, slot, scale = stored(case, eight)
    x_out, x_in = (random(case.shape, dtype, case.read)[1] for _ in range(2))
    if case.special:
        x_out[0, 1, 2, 3] = math.nan
        x_out[1, 1, 2, 5] = math.inf
        x_out[2, 2, 1] = 0
        x_in[2, 2, 1] = 0
    pairs = [stored(case, eight)[1:] for _ in range(mode.previous)]
    previous, scales = [p for p, _ in pairs], [s for _, s in pairs]
    if mode.mixed:
        previous[0], scales[0] = random(case.shape, dtype, case.read)[1], None
    terms = mode.previous + (mode.slot_holds == "previous")
    coefficients = torch.randn(terms) if terms else None
    arguments = (x_out, x_in if mode.has_input else None, previous, coefficients, mode.strides)
    expected, expected_scale = slot.clone(), scale.clone()
    sums = reference.distance_update(
        expected,
        *arguments,
        mode.metric,
        mode.slot_holds,
        expected_scale,
        scales,
    )[:, 0]
    before, scale_before, found = slot.clone(), scale.clone(), []
    for order in (None, "reverse"):
        emulator.order = order
        slot.copy_(before)
        scale.copy_(scale_before)
        emulator.launches.clear()
        with pytest.MonkeyPatch.context() as patch:
            if case.programs is not None:
                patch.setattr(gpu_tokens, "partials", lambda *_, n=case.programs: n)
            found.append(
                ops.distance_update(slot, *arguments, mode.metric, mode.slot_holds, scale, scales)
            )
        assert [launch.name for launch in emulator.launches] == [KERNEL] * (slot.numel() > 0), case
        assert torch.equal(slot.view(torch.uint8), expected.view(torch.uint8)), case
        assert torch.equal(scale, expected_scale), case
        assert (around(base, slot) == UNTOUCHED).all(), case
    assert_same_bits(*found)
    total, wanted = found[0].double().sum(dim=1), sums.double()
    assert torch.equal(total.isnan(), wanted.isnan()), case
    finite = wanted.isfinite()
    difference = (total - wanted).abs()[finite]
    assert (difference <= summation_error(case, wanted, mode.metric)[finite]).all(), case


def summation_error(case: Case, sums: Tensor, metric: str) -> Tensor:
    """Return a bound of the error of float32 sums over the same terms.

    A thread adds at most 8 elements of 4 groups of each frame of at most 4 tokens. A program adds
    2^9 threads as a tree of 9 levels; the tests add at most 7 programs, in float64. Each addition
    is off by at most half an EPS of a sum that is no larger than the sum of the magnitudes.
    reference.py rounds once more. The first sum of the cosine has terms of both signs: by Cauchy
    and Schwarz, their magnitudes are within the root of the other two sums.
    """
    magnitudes = sums.clone()
    if metric == "cosine":
        magnitudes[:, 0] = (sums[:, 1] * sums[:, 2]).sqrt()
    additions = 8 * 4 * 4 * max(1, case.shape[1]) + 9 + 1
    return additions * EPS / 2 * magnitudes


def test_every_code_is_read_and_every_tie_rounded(emulator: EmulatorDriver) -> None:
    """All float8 numbers, the ties between them, and their neighbours in float32."""
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    halfway = (codes[1:] + codes[:-1]) / 2
    x = torch.cat([codes, halfway])
    x = torch.cat([x, x.nextafter(x + 1), x.nextafter(x - 1)]).clamp(max=448)
    x = torch.cat([x, -x]).view(1, 1, 1, -1)
    for eight in EIGHT:
        slot, scale = torch.empty(x.shape, dtype=eight), torch.empty(1, 1, 1, 1)
        ops.distance_update(slot, x, slot_holds="nothing", scale=scale)
        expected, expected_scale = reference.quantize(x, eight)
        assert torch.equal(slot.view(torch.uint8), expected.view(torch.uint8))
        assert torch.equal(scale, expected_scale)
        assert [launch.name for launch in emulator.launches][-1] == KERNEL


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((1, 2, 1, MAX_CHANNELS + 1), ()), ((1, RING_ELEMENTS + 2, 1, 8), (RING_ELEMENTS + 1,))],
    ids=["long token", "long stride"],
)
def test_what_does_not_fit_runs_in_plain_torch(
    emulator: EmulatorDriver, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    slot, scale = torch.empty(shape, dtype=torch.int8), torch.empty(*shape[:3], 1)
    sums = ops.distance_update(slot, x, slot_holds="nothing", scale=scale, strides=strides)
    assert not emulator.launches
    assert torch.equal(slot, reference.quantize(x, torch.int8)[0])
    assert sums.shape == (1, gpu_tokens.partials(slot), 3 + 2 * len(strides))
