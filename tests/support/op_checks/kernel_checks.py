"""Checks of the Triton kernels that update and add residuals, against reference.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.ops import reference
from adacache_kernels.ops import triton_backend as gpu
from tests.support.op_checks.kernel_cases import EPS, Case, in_both_orders, operands, video_tokens
from tests.support.op_checks.operands import (
    assert_same_bits,
    assert_tail_untouched,
    contiguous,
    misaligned,
    padded,
    permuted,
    random,
    strided_channels,
)
from tests.support.ptx_emulator import EmulatorDriver

CASES = [
    Case("aligned", (2, 4, 6, 64)),
    Case("several tiles, the last one short", (1, 5, 36, 64)),
    Case("one group more than two tiles", (1, 4, 129, 8)),
    Case("two tiles to the last group", (1, 4, 128, 8)),
    Case("fewer programs than tiles", (1, 4, 36, 64), programs=2),
    Case("programs without a tile", (1, 4, 36, 64), programs=7),
    Case("frames in batch", (2, 4, 6, 64), read=padded),
    Case("tokens in batch", (2, 4, 6, 64), permuted, permuted),
    Case("two layouts", (2, 3, 5, 32), permuted, contiguous),
    Case("text and history", (2, 4, 6, 64), video_tokens, video_tokens),
    Case("two layouts, several tiles", (2, 3, 140, 32), permuted, contiguous),
    Case("odd", (1, 3, 5, 7)),
    Case("odd, fewer programs than tiles", (1, 3, 77, 21), programs=2),
    Case("odd, programs without a tile", (2, 3, 5, 7), programs=3),
    Case("misaligned", (2, 3, 5, 64), misaligned, contiguous),
    Case("misaligned input", (2, 3, 5, 64), contiguous, misaligned),
    Case("rows of odd length", (2, 3, 4, 30), padded, padded),
    Case("every other channel", (1, 2, 3, 8), strided_channels, contiguous),
    Case("one element", (1, 1, 1, 1)),
    Case("no sample", (0, 3, 2, 8)),
    Case("no frame", (2, 0, 2, 8)),
    Case("no token", (2, 3, 0, 8)),
    Case("no channel", (2, 3, 2, 0)),
    Case("NaN and infinity", (3, 4, 6, 64), special=True),
]


@dataclass(frozen=True)
class Mode:
    """The arguments of distance_update."""

    metric: str
    slot_holds: str
    has_input: bool
    previous: int
    strides: tuple[int, ...]


MODES = [
    Mode("l1", "previous", True, 0, (1,)),
    Mode("l2", "previous", False, 1, ()),
    Mode("cosine", "previous", True, 2, (1, 3)),
    Mode("l2", "nothing", True, 3, (1,)),
    Mode("cosine", "nothing", False, 0, ()),
]


def summation_error(case: Case, terms: Tensor) -> Tensor:
    """Return a bound of the error of float32 sums over the same terms.

    A thread adds 8 elements of each frame of its tiles, at most 4 in a test, and 16 groups at most.
    A program then adds its 2^10 groups as a tree of 10 levels. Each addition is off by at most half
    an EPS of a sum that is no larger than the sum of the magnitudes. reference.py rounds once more.
    """
    additions = 8 + 4 * case.shape[1] * 16 + 10 + 1
    return additions * EPS / 2 * terms


def check_distance_update(
    driver: EmulatorDriver, dtype: torch.dtype, mode: Mode, case: Case
) -> None:
    base, slot, (x_out, x_in, *previous) = operands(case, dtype, 2 + mode.previous)
    terms = mode.previous + (mode.slot_holds == "previous")
    coefficients = torch.randn(terms) if mode.previous else None
    arguments = (x_out, x_in if mode.has_input else None, previous, coefficients, mode.strides)
    expected_slot, indices = (
        slot.clone(),
        (
            mode.metric,
            mode.slot_holds,
        ),
    )
    old = [tensor.float() for tensor in [*previous, slot.clone()][:terms]]
    expected = reference.distance_update(expected_slot, *arguments, *indices)[:, 0]
    partials = gpu.partials if case.programs is None else lambda *_: case.programs
    with mock.patch.object(gpu, "partials", partials):
        sums = in_both_orders(
            driver, ops.distance_update, slot, *arguments, mode.metric, mode.slot_holds
        )
    assert_same_bits(slot, expected_slot)
    assert_tail_untouched(base, slot)
    total = sums.double().sum(dim=1)
    magnitudes = expected.double()
    if mode.metric == "cosine" and terms:  # The only sum with terms of both signs.
        forecast = reference._forecast(old, coefficients)
        products = (forecast * expected_slot.float()).double().abs()
        magnitudes[:, 0] = products.sum(dim=(1, 2, 3))
    exact = expected.isfinite()
    error = (total - expected.double()).abs()
    assert bool((error <= summation_error(case, magnitudes))[exact].all()), case
    assert torch.equal(total.float().isnan(), expected.isnan()), case
    assert torch.equal(
        total[~exact & ~expected.isnan()].float(), expected[~exact & ~expected.isnan()]
    ), case


def check_residual_update(driver: EmulatorDriver, dtype: torch.dtype, case: Case) -> None:
    base, slot, (x_out, x_in) = operands(case, dtype, 2)
    expected = slot.clone()
    reference.residual_update(expected, x_out, x_in)
    in_both_orders(driver, ops.residual_update, slot, x_out, x_in)
    assert_same_bits(slot, expected)
    assert_tail_untouched(base, slot)


def check_conditional_add(
    driver: EmulatorDriver, dtype: torch.dtype, count: int, case: Case
) -> None:
    for flag, in_place in ((0, False), (1, False), (-7, True)):
        base, out, (x, *residuals) = operands(case, dtype, 1 + count)
        x = out if in_place else x
        arguments = torch.randn(count), torch.tensor([flag], dtype=torch.int32)
        expected, before = torch.empty_like(x), x.clone()
        reference.conditional_add(expected, x, residuals, [None] * count, *arguments)
        driver.launches.clear()
        in_both_orders(driver, add, out, None if in_place else x, residuals, *arguments)
        assert_same_bits(out, expected)
        assert_tail_untouched(base, out)
        if not in_place:
            assert_same_bits(x, before)
        if flag == 0:
            touched = {name for launch in driver.launches for name in touching(launch)}
            assert touched <= {"flag", "x.0", "out.0"}, case


def add(out: Tensor, x: Tensor | None, *arguments: Any) -> None:
    """Write a conditional add to `out`, in place if `x` is None."""
    ops.conditional_add(out if x is None else x, *arguments, out=out)


def touching(launch: Any) -> Iterator[str]:
    """Return the arguments whose memory a launch has read or written."""
    for name, traffic in launch.traffic.items():
        if traffic.bytes_loaded or traffic.bytes_stored:
            yield name


EIGHT_BIT_CASES = [
    Case("two layouts, several tiles", (2, 3, 140, 32), permuted, contiguous),
    Case("two planes", (2, 4, 6, 64), video_tokens, contiguous),
    Case("odd", (2, 3, 5, 63)),
    Case("no token", (2, 3, 0, 8)),
]


def check_conditional_add_of_eight_bits(
    driver: EmulatorDriver, dtype: torch.dtype, case: Case
) -> None:
    """Check all int8 and float8 values, in every element of a group, with scales and without."""
    (base, out), (_, x) = (random(case.shape, dtype, case.written) for _ in range(2))
    bits = [torch.randint(0, 256, case.shape, dtype=torch.uint8) for _ in range(2)]
    residuals = [bits[0].view(torch.int8), bits[1].view(torch.float8_e4m3fn)]
    scale, other = (torch.rand(*case.shape[:3], 1) for _ in range(2))
    for scales in ([scale, None], [scale, other]):
        for flag in (1, 0):
            arguments = torch.randn(2), torch.tensor([flag], dtype=torch.int32)
            expected = torch.empty_like(x)
            reference.conditional_add(expected, x, residuals, scales, *arguments)
            in_both_orders(driver, add, out, x, residuals, *arguments, scales)
            assert_same_bits(out, expected)
            assert_tail_untouched(base, out)
