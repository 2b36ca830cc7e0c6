"""The presets, for any number of steps.

The paper and its code (arXiv 2411.02397, "Adaptive Caching") publish codebooks for Open-Sora 1.2:
"fast" at 30 and at 100 steps, and "slow" at 30 steps. Codebooks of other step counts are derived:

- Between two published counts, thresholds and rates are interpolated linearly in the step count.
- Below and above them, one step of N covers 1/N of the trajectory: with `P` the nearest published
  count, thresholds scale with P / N and rates with N / P.

Derived rates are rounded down, but not below 1, so that a derived codebook reuses fewer steps
rather than more.
"""

from __future__ import annotations

import math
from typing import Any

from .codebook import Codebook

_ELSE = math.inf

PUBLISHED: dict[str, dict[int, Codebook]] = {
    "fast": {
        30: Codebook((0.08, 0.16, 0.24, 0.32, 0.40, _ELSE), (6, 5, 4, 3, 2, 1)),
        100: Codebook((0.03, 0.05, 0.07, 0.09, 0.11, _ELSE), (12, 10, 8, 6, 4, 3)),
    },
    "slow": {30: Codebook((0.08, 0.16, _ELSE), (3, 2, 1))},
}
PRESETS = tuple(PUBLISHED)

# Settings of `patch(model, name)`. "fast" and "slow" are the paper's. "forecast" reuses steps while
# the forecast error is a few percent: it computes about 20 of 50 steps of the demo model. With more
# steps its rates could be larger; with fewer steps it computes a larger part of them. Both favour
# quality over speed.
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"codebook": name} for name in PRESETS},
    "forecast": {
        "forecast": 1,
        "correct": True,
        "measure": "forecast-error",
        "codebook": {0.03: 4, 0.06: 3, 0.12: 2, _ELSE: 1},
    },
}

# First and last step of motion regularization, by step count.
PUBLISHED_WINDOWS = {30: (4, 26), 100: (10, 90)}


def preset_codebook(name: str, num_steps: int) -> Codebook:
    """Return the codebook of the preset `name`, "fast" or "slow", for `num_steps` steps."""
    published = PUBLISHED[name]
    if num_steps in published:
        return published[num_steps]
    lowest, highest = min(published), max(published)
    if num_steps < lowest:
        return _scaled(published[lowest], num_steps / lowest)
    if num_steps > highest:
        return _scaled(published[highest], num_steps / highest)
    return _interpolated(
        published[lowest], published[highest], (num_steps - lowest) / (highest - lowest)
    )


def moreg_window(num_steps: int) -> tuple[int, int]:
    """Return the first and last step of motion regularization, counted from 1.

    The released code has steps 4 to 26 of 30, and 10 to 90 of 100. Windows in between are
    interpolated linearly in the step count; others scale with it.
    """
    (low, low_window), (high, high_window) = PUBLISHED_WINDOWS.items()
    if num_steps <= low:
        first, last = (edge * num_steps / low for edge in low_window)
    elif num_steps >= high:
        first, last = (edge * num_steps / high for edge in high_window)
    else:
        weight = (num_steps - low) / (high - low)
        first, last = (_mix(a, b, weight) for a, b in zip(low_window, high_window, strict=True))
    return max(1, round(first)), max(1, round(last))


def _scaled(codebook: Codebook, ratio: float) -> Codebook:
    thresholds = tuple(threshold / ratio for threshold in codebook.thresholds)
    return Codebook(thresholds, tuple(_floor(rate * ratio) for rate in codebook.rates))


def _interpolated(low: Codebook, high: Codebook, weight: float) -> Codebook:
    thresholds = tuple(
        a if math.isinf(a) else _mix(a, b, weight)
        for a, b in zip(low.thresholds, high.thresholds, strict=True)
    )
    rates = tuple(_floor(_mix(a, b, weight)) for a, b in zip(low.rates, high.rates, strict=True))
    return Codebook(thresholds, rates)


def _mix(a: float, b: float, weight: float) -> float:
    return a + (b - a) * weight


def _floor(rate: float) -> int:
    # 1e-9: rounding errors must not push an exact integer (3 * 60 / 30) below itself.
    return max(1, math.floor(rate + 1e-9))
