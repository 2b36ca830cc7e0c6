"""Shapes and memory layouts for the Triton kernels, and runs in both orders of the programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support.op_checks.operands import (
    SENTINEL,
    Layout,
    assert_same_bits,
    contiguous,
    random,
)
from tests.support.ptx_emulator import EmulatorDriver

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
EPS = torch.finfo(torch.float32).eps


def video_tokens(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the tokens of a video between those of a text and of a history, in one sequence."""
    batch, frames, tokens, channels = shape
    base = torch.full((batch, 3 + frames * tokens + 2, channels), SENTINEL, dtype=dtype)
    return base, base[:, 3 : 3 + frames * tokens].unflatten(1, (frames, tokens))


@dataclass(frozen=True)
class Case:
    """A shape, and the memory layout of the written tensor and of the others.

    `special` puts NaN and infinity among the numbers. `programs` is the number of programs that
    share a sample in distance_update, if it is not the number of tiles.
    """

    name: str
    shape: tuple[int, ...]
    written: Layout = contiguous
    read: Layout = contiguous
    special: bool = False
    programs: int | None = None


def in_both_orders(
    driver: EmulatorDriver, op: Callable[..., Tensor | None], written: Tensor, *arguments: Any
) -> Tensor | None:
    """Run an op twice from the same start, with its programs in both orders; compare the bits."""
    before = written.clone()
    results = []
    for order in (None, "reverse"):
        driver.order = order
        written.copy_(before)
        sums = op(written, *arguments)
        results.append((written.clone(), sums))
    (first, first_sums), (second, second_sums) = results
    assert_same_bits(second, first)
    if first_sums is not None:
        assert_same_bits(second_sums, first_sums)
    return first_sums


def operands(case: Case, dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the buffer and the view that is written, and `count` other tensors."""
    base, written = random(case.shape, dtype, case.written)
    others = [random(case.shape, dtype, case.read)[1] for _ in range(count)]
    if case.special:
        others[0][0, 1, 2, 3] = math.nan
        others[0][1, 1, 2, 5] = math.inf
    return base, written, others
