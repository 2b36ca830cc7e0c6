"""How sensitive the outcome is to what is missed at each step, fitted to generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schedule import Plan

# With 8, the sudden rise of the demo's sensitivity at its sixth step was smoothed away, and with it
# 2 dB at 17 of 50 computed steps.
KNOTS = 14
# Weights of squared differences between neighbouring knots, and of the logarithms themselves,
# beside the mean squared deviation in dB.
SMOOTHNESS, SHRINKAGE = 3e-2, 1e-3
TINY = 1e-30


@dataclass(frozen=True)
class Trial:
    """A generation with a given schedule: of which case, its computed steps, its squared error."""

    case: int
    steps: list[int]
    error: float


def fit_sensitivity(
    plan: Plan, trials: Sequence[Trial]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Sensitivities that explain the errors of the trials.

        log error = hardness of the case + log sum_intervals sensitivity(t) * missed

    by least squares, with `missed` of the interval that the computed step t ends, at sensitivity 1,
    and the logarithm of the sensitivity linear between `KNOTS` steps.

    Args:
        plan: with a sensitivity of 1 everywhere.
        trials: with errors above zero.

    Returns:
        Sensitivity of each step; hardness of each case in dB; standard deviation of what is not
        explained, in dB.
    """
    intervals = [plan.intervals(trial.steps) for trial in trials]
    width = max(map(len, intervals))
    ends, missed = torch.zeros(len(trials), width), torch.zeros(len(trials), width)
    for row, found in enumerate(intervals):
        ends[row, : len(found)] = torch.tensor([float(end) for end, _ in found])
        missed[row, : len(found)] = torch.tensor([amount for _, amount in found])
    cases = torch.tensor([trial.case for trial in trials])
    errors = 10 * torch.tensor([trial.error for trial in trials]).double().log10().float()

    knots = torch.zeros(KNOTS, requires_grad=True)
    typical = (errors - 10 * (missed.sum(dim=1) + TINY).log10()).mean()
    hardness = torch.full((int(cases.max()) + 1,), float(typical), requires_grad=True)

    def deviations() -> Tensor:
        total = (_between(knots, ends / plan.num_steps).exp() * missed).sum(dim=1)
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
        # Only ratios matter: a common factor is as well the hardness of all cases.
        sensitivity = _between(knots - knots.mean(), steps).exp().double().numpy()
        unexplained = float(deviations().std())
    return sensitivity, hardness.detach().double().numpy(), unexplained


def _between(knots: Tensor, place: Tensor) -> Tensor:
    """Linear interpolation of evenly spaced knots at places from 0 to 1."""
    position = place * (KNOTS - 1)
    below = position.floor().clamp(0, KNOTS - 2).long()
    weight = position - below
    return knots[below] * (1 - weight) + knots[below + 1] * weight
