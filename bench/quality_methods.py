"""The rows of the comparison: what is run, at which budget, with which scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adacache_kernels.policies import evenly_spread
from adacache_kernels.presets import SETTINGS

SOLVERS = {
    "DDIM": "DDIMScheduler",
    "DPM-Solver++ 2M": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
}
OWN = "DDIM"
BUDGETS = {50: (25, 17, 12, 9), 100: (34, 17)}
QUICK_BUDGETS = {50: (25, 17, 12, 9)}
# Even schedules of which an oracle may choose the best number of computed steps for each video; at
# 100 steps only what a mean number beside the budgets is compared with.
GRID = {
    50: (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 19, 21, 23, 25, 28, 32),
    100: (15, 19, 31, 38),
}
FORECAST = {"forecast": 1, "correct": True}


@dataclass(frozen=True)
class Method:
    """One generation of each video.

    Args:
        name: of the row.
        steps: of the full run that it is compared with.
        budget: computed steps that it aims at; 0 for a full run or where a codebook sets them.
        solver: key of `SOLVERS`.
        scheduler_steps: that the pipeline runs.
        settings: for `patch`; None leaves the pipeline unpatched.
    """

    name: str
    steps: int
    budget: int
    solver: str = OWN
    scheduler_steps: int = 0
    settings: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def key(self) -> str:
        """What tells the rows of a results file apart."""
        return f"{self.steps}/{self.budget}/{self.solver}/{self.name}"


FULL, FEWER = "full", "fewer steps"
EVEN_REUSE, EVEN_ORDER_1 = "even, reuse", "even, order 1"
EVEN_ORDER_2 = "even, order 2, corrected"
EVEN, EVEN_FITTED = "even, order 1, corrected", "even, fitted, corrected"
EVEN_SIGMA, EVEN_LOG_SNR = "even, along sigma", "even, along log-SNR"
ON_ERROR = "preset forecast"
STATIC, ADAPTIVE, ADAPTIVE_MOREG = "profile, static", "profile, adaptive", "profile, MoReg"
ADAPTIVE_INT8, ADAPTIVE_FP8 = "profile, adaptive, int8", "profile, adaptive, fp8"


def full_runs(steps: int) -> list[Method]:
    """The runs that all others are compared with, one a solver."""
    return [Method(FULL, steps, 0, solver, steps) for solver in SOLVERS]


def methods(steps: int, profile: Path, quick: bool) -> list[Method]:
    """Every other row for generations of `steps`."""
    budgets = (QUICK_BUDGETS if quick else BUDGETS)[steps]
    rows = [row for budget in budgets for row in _at(steps, budget, profile, quick)]
    if steps == 50:
        rows += [_patched(f"preset {name}", steps, 0, SETTINGS[name]) for name in ("slow", "fast")]
        rows.append(_patched(ON_ERROR, steps, 0, SETTINGS["forecast"]))
    if not quick:
        grid = [count for count in GRID[steps] if count not in budgets]
        rows += [_even(EVEN, steps, count, FORECAST) for count in grid]
    return rows


def _at(steps: int, budget: int, profile: Path, quick: bool) -> list[Method]:
    planned = FORECAST | {"profile": str(profile), "computed_steps": float(budget)}
    rows = [Method(FEWER, steps, budget, solver, budget) for solver in SOLVERS]
    rows += [
        _even(EVEN_REUSE, steps, budget, {}),
        _even(EVEN, steps, budget, FORECAST),
        _patched(ADAPTIVE, steps, budget, planned),
    ]
    if quick:
        return rows
    rows += [
        _even(EVEN_ORDER_1, steps, budget, {"forecast": 1}),
        _even(EVEN_FITTED, steps, budget, FORECAST | {"profile": str(profile)}),
        _patched(STATIC, steps, budget, planned | {"adaptivity": 0.0}),
    ]
    if steps == 50:
        rows += [
            _even(EVEN_ORDER_2, steps, budget, FORECAST | {"forecast": 2}),
            _patched(ADAPTIVE_MOREG, steps, budget, planned | {"apply_moreg": True}),
            _patched(ADAPTIVE_INT8, steps, budget, planned | {"cache_dtype": "int8"}),
            _patched(ADAPTIVE_FP8, steps, budget, planned | {"cache_dtype": "fp8"}),
        ]
    if steps == 50 and budget >= 17:
        rows += [
            _even(EVEN_SIGMA, steps, budget, FORECAST | {"forecast_time": "sigma"}),
            _even(EVEN_LOG_SNR, steps, budget, FORECAST | {"forecast_time": "log-snr"}),
        ]
    if steps == 50 and budget >= 12:
        rows.append(_even(EVEN, steps, budget, FORECAST, "DPM-Solver++ 2M"))
    return rows


def _even(
    name: str, steps: int, budget: int, settings: dict[str, Any], solver: str = OWN
) -> Method:
    return _patched(
        name, steps, budget, settings | {"schedule": evenly_spread(budget, steps)}, solver
    )


def _patched(
    name: str, steps: int, budget: int, settings: dict[str, Any], solver: str = OWN
) -> Method:
    return Method(name, steps, budget, solver, steps, settings)
