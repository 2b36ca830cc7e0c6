"""The fit of the outcome's sensitivity to forecast errors, by step, to measured generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schedule import Plan

# Points between which the logarithm of the sensitivity is linear. The demo's sensitivity rises
# suddenly at its sixth step. 8 points smooth that away, which costs 2 dB at 17 of 50 computed
# steps.
KNOTS = 14
# Weights of the squared differences between neighbouring knots and of the squared logarithms, as
# against the mean squared deviation in dB.
SMOOTHNESS, SHRINKAGE = 3e-2, 1e-3
TINY = 1e-30


@dataclass(frozen=True)
class Trial:
    """A generation with a given schedule.

    Args:
        case: index of its case.
        steps: its computed steps, counted from 1.
        error: mean squared error of its outcome.
    """

    case: int
    steps: list[int]
    error: float


def fit_sensitivity(
    plan: Plan, trials: Sequence[Trial]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Fit sensitivities that explain the errors of the trials, by least squares.

        log error = hardness of the case + log sum_intervals sensitivity(t) * forecast error

    The forecast error is that of the interval that the computed step t ends, at a sensitivity of 1.
    The logarithm of the sensitivity is linear between `KNOTS` steps.

    Args:
        plan: with a sensitivity of 1 everywhere.
        trials: with errors above zero.

    Returns:
        Sensitivity of each step, `[steps]`; hardness of each case in dB, `[cases]`; standard
        deviation of the unexplained part of the errors, in dB.
    """
    ends, missed = _intervals(plan, trials)
    cases = torch.tensor([trial.case for trial in trials])
    errors = 10 * torch.tensor([trial.error for trial in trials]).double().log10().float()

    knots = torch.zeros(KNOTS, requires_grad=True)
    typical = (errors - 10 * (missed.sum(dim=1) + TINY).log10()).mean()
    hardness = torch.full((int(cases.max()) + 1,), float(typical), requires_grad=True)

    def deviations() -> Tensor:
        total = (_interpolated(knots, ends / plan.num_steps).exp() * missed).sum(dim=1)
        return hardness[cases] + 10 * (total + TINY).log10() - errors

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (
            deviations().square().mean()
            + SMOOTHNESS * (knots[1:] - knots[:-1]).square().mean()
            + SHRINKAGE * knots.square().mean()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = torch.optim.LBFGS(
        [knots, hardness], lr=0.5, max_iter=400, line_search_fn="strong_wolfe"
    )
    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    steps = torch.arange(1, plan.num_steps + 1) / plan.num_steps
    with torch.no_grad():
        # Only ratios matter: the hardness of the cases contains any common factor.
        sensitivity = _interpolated(knots - knots.mean(), steps).exp().double().numpy()
        unexplained = float(deviations().std())
    return sensitivity, hardness.detach().double().numpy(), unexplained


def _intervals(plan: Plan, trials: Sequence[Trial]) -> tuple[Tensor, Tensor]:
    """Return the last steps and the forecast errors, `[trials, intervals]` each, padded by 0."""
    intervals = [plan.intervals(trial.steps) for trial in trials]
    width = max(map(len, intervals))
    ends, missed = torch.zeros(len(trials), width), torch.zeros(len(trials), width)
    for row, pairs in enumerate(intervals):
        ends[row, : len(pairs)] = torch.tensor([float(end) for end, _ in pairs])
        missed[row, : len(pairs)] = torch.tensor([error for _, error in pairs])
    return ends, missed


def _interpolated(knots: Tensor, time: Tensor) -> Tensor:
    """Return the linear interpolation of evenly spaced `knots` at times from 0 to 1."""
    position = time * (KNOTS - 1)
    below = position.floor().clamp(0, KNOTS - 2).long()
    weight = position - below
    return knots[below] * (1 - weight) + knots[below + 1] * weight
