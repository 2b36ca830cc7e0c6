"""How far apart two runs may be that do the same sums in another order.

A product of matrices rounds by where they lie: rows that do not begin where a processor's vectors
do are summed in another order. Where both runs use the same memory, they are equal bit for bit, and
tests say so; elsewhere they use what is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.oracles.two_residuals_per_block import relative

# The tiny models sum some 64 terms, in some 64 products one after another. Roundings go up and
# down: sqrt(64 * 64) = 64 times 2^-24, of float32. Steps do not add to it, as each goes a part of
# the way. Measured between addresses: 1.2e-6 at most; a reused step moves 3e-5 or more.
BOUND = 64 * 2**-24
# In eight bits, rounding may give an element the next code, 1 / 127 of its token's largest away.
# One of 1024 elements moves the norm by this.
ONE_CODE = 1 / (127 * 32)


def close(
    found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor], bound: float = BOUND
) -> bool:
    """Return if each tensor is as expected, in norm, but for rounding in another order."""
    pairs = zip(_several(found), _several(expected), strict=True)
    return all(torch.equal(a, b) or relative(a, b) < bound for a, b in pairs)


def close_numbers(
    found: Sequence[float | None], expected: Sequence[float | None], bound: float = BOUND
) -> bool:
    """Return if distances or scores are as expected but for rounding.

    A distance is the difference of two residuals over one of them: twice the bound.
    """
    pairs = list(zip(found, expected, strict=True))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    # Pairs with a None in them are equal, or not close.
    return all(abs(a - b) < 2 * bound for a, b in known) and all(
        a == b for a, b in pairs if a is None or b is None
    )


def close_summaries(found: ak.Summary, expected: ak.Summary, bound: float = BOUND) -> bool:
    """Return if summaries are equal but for the rounding of what was measured."""
    measured = ("distances", "raw_distances", "motion_scores")
    taken = {name: getattr(expected, name) for name in measured}
    return replace(found, **taken) == expected and all(
        close_numbers(getattr(found, name), taken[name], bound) for name in measured
    )


def _several(tensors: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else tensors
