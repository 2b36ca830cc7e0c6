"""The presets "fast" and "slow" for any number of steps.

Published are, for Open-Sora 1.2, "fast" at 30 and at 100 steps and "slow" at 30 (arXiv 2411.02397
and the code released with it). The other numbers of steps are derived:

- between two published ones, thresholds and rates are interpolated linearly in the number of steps;
- beyond them, one step of N covers 1/N of the trajectory: thresholds scale with (published N) / N,
  rates with N / (published N), rounded down and at least 1.

Rates of a derived codebook are rounded down, so that it reuses rather less than the published one.
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

# Settings by name, for `patch(model, name)`. "fast" and "slow" are the paper's. "forecast" reuses
# while a residual's forecast is wrong by a few percent; at 50 steps of the demo model it computes
# about 20. With more steps the error of a step is smaller and its rates could be larger, with fewer
# it is larger and more of them are computed: either way it errs on the side of quality.
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"codebook": name} for name in PRESETS},
    "forecast": {
        "forecast": 1,
        "correct": True,
        "measure": "forecast-error",
        "codebook": {0.03: 4, 0.06: 3, 0.12: 2, _ELSE: 1},
    },
}

PUBLISHED_WINDOWS = {30: (4, 26), 100: (10, 90)}


def preset_codebook(name: str, num_steps: int) -> Codebook:
    """The preset's codebook for a generation of `num_steps`; published ones are given unchanged."""
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
    """First and last step of motion regularisation, counted from 1.

    Published are (4, 26) of 30 and (10, 90) of 100 steps; in between linear, beyond in proportion.
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
    # 1e-9: a rate that is whole on paper (3 * 60 / 30) must not fall below through rounding.
    return max(1, math.floor(rate + 1e-9))
