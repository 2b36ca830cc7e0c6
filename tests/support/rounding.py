"""Comparisons of two runs that add the same numbers in another order.

The rounding of a matrix product depends on the addresses of the matrices: rows that are not aligned
with a processor's vectors are summed in another order. If both runs use the same memory, they are
equal bit for bit, and tests check that. Otherwise tests use these comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.oracles.two_residuals_per_block import relative

# The tiny models add about 64 terms in each of about 64 products, one after another. Rounding
# errors of both signs add up to sqrt(64 * 64) = 64 times 2^-24, the unit of float32. Measured
# between addresses: at most 1.2e-6. A reused step changes the result by 3e-5 or more.
BOUND = 64 * 2**-24
# In int8, another rounding may change an element by one code, 1 / 127 of its token's largest value.
# If that happens to one of 1024 elements, the norm changes by this.
ONE_CODE = 1 / (127 * 32)


def close(
    found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor], bound: float = BOUND
) -> bool:
    """Return True if the norm of each difference is below `bound`, relative to the expected one."""
    pairs = zip(_several(found), _several(expected), strict=True)
    return all(torch.equal(a, b) or relative(a, b) < bound for a, b in pairs)


def close_numbers(
    found: Sequence[float | None], expected: Sequence[float | None], bound: float = BOUND
) -> bool:
    """Return True if distances or motion scores differ by less than twice `bound`.

    A distance is computed from two residuals, and each may differ by `bound`.
    """
    pairs = list(zip(found, expected, strict=True))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    # A pair with one None is not close.
    return all(abs(a - b) < 2 * bound for a, b in known) and all(
        a == b for a, b in pairs if a is None or b is None
    )


def close_summaries(found: ak.Summary, expected: ak.Summary, bound: float = BOUND) -> bool:
    """Return True if summaries are equal except for the rounding of the measured numbers."""
    measured = ("distances", "raw_distances", "motion_scores")
    taken = {name: getattr(expected, name) for name in measured}
    return replace(found, **taken) == expected and all(
        close_numbers(getattr(found, name), taken[name], bound) for name in measured
    )


def _several(tensors: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else tensors
