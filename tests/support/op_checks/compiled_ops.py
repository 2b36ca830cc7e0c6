"""The compiled ops of the CPU, called without the checks and the dispatch of `ops`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from adacache_kernels import _native
from adacache_kernels.ops.native_views import address, optional_view, view

_C: Any = _native.module()
BEST = _C.instruction_sets()[-1]
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (3, 2, 1, 1),
    (1, 3, 2, 4099),  # odd, and longer than one pass
    (2, 17, 9, 32),
    (2, 1, 70, 1000),  # several tasks
    (0, 3, 2, 4),
    (2, 0, 2, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 0),
]
SUM_ERROR = 2**-21  # of the sum of the terms' magnitudes, see csrc/cpu/kernels.hpp
METRICS = {"l1": 0, "l2": 1, "cosine": 2}
NOTHING, PREVIOUS = range(2)


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    _C.set_instruction_set(request.param)
    yield request.param
    _C.set_instruction_set(BEST)


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None = None,
    previous: Sequence[Tensor] = (),
    coefficients: Tensor | None = None,
    strides: Sequence[int] = (),
    metric: int = 0,
    slot_holds: int = PREVIOUS,
    threads: int = 1,
    scale: Tensor | None = None,
    scales: Sequence[Tensor | None] = (),
) -> Tensor:
    """Run the compiled op without the fallback to the reference."""
    sums = torch.full((slot.shape[0], 3 + 2 * len(strides)), torch.nan)
    _C.distance_update(
        view(slot),
        view(x_out),
        optional_view(x_in),
        [view(p) for p in previous],
        address(coefficients),
        slot_holds,
        strides,
        metric,
        optional_view(scale),
        [optional_view(own) for own in scales],
        sums.data_ptr(),
        threads,
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, threads: int = 1) -> None:
    _C.residual_update(*map(view, (slot, x_out, x_in)), threads)


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    coefficients: Tensor,
    flag: int = 1,
    scales: Sequence[Tensor | None] = (),
    threads: int = 1,
    out: Tensor | None = None,
) -> None:
    """Run the compiled op, in place if `out` is None."""
    on = torch.tensor([flag], dtype=torch.int32)
    _C.conditional_add(
        view(x if out is None else out),
        view(x),
        [view(r) for r in residuals],
        [optional_view(s) for s in scales or [None] * len(residuals)],
        coefficients.data_ptr(),
        on.data_ptr(),
        threads,
    )
