"""The forecast: a residual at a step that is not computed, from those of the steps that were.

    forecast(t) = sum_i a_i R_i         R_0 the newest residual, R_1 the one before, ...

At the next computed step, t, the true residual R is known, and with it what the forecasts since the
last computed step missed: at each step j in between (R - forecast(t)) * k_j, for an error known at
one end and zero at the other. The solver took a step with each of them; the steps are about as long
as this one (to weigh them by their true lengths changed the mean of six of the demo's videos by
-0.4, +0.6, +1.0, +0.4 dB at 25, 17, 12, 9 of 50 even steps), so it makes up for them all if what it
adds is

    R + c * (R - forecast(t))           c = sum_j k_j

This is the corrector of a predictor-corrector solver, made without a second evaluation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Forecast(Protocol):
    """How a residual is forecast; steps are counted from 1, histories begin with the newest."""

    @property
    def order(self) -> int:
        """One less than the number of residuals that it takes, where there are as many."""

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        """a_i for the first `order` + 1 steps of `history`, or for all where it has fewer."""

    def correction(self, history: Sequence[int], step: int) -> float:
        """c for the computed step `step`, with `history` as it was before."""


class PolynomialForecast:
    """The polynomial through the last residuals: a_i = prod_{j != i} (t - t_j) / (t_i - t_j).

    Order 0 is the paper's reuse, 1 a straight line, 2 a parabola. By the polynomial through R as
    well, k_j = e(t_j) / e(t) with e(x) = prod_i (x - t_i).

    Args:
        order: of the polynomial.
        times: time of each step, strictly monotone; None counts steps.

    Raises:
        ValueError: times that are not finite or not strictly monotone.
    """

    def __init__(self, order: int, times: Sequence[float] | None = None) -> None:
        self.order = order
        self._times = None if times is None else tuple(times)
        if self._times is not None:
            _check_monotone(self._times)

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        times = [self._time(known) for known in history[: self.order + 1]]
        now = self._time(step)
        return tuple(
            math.prod((now - u) / (t - u) for j, u in enumerate(times) if j != i)
            for i, t in enumerate(times)
        )

    def correction(self, history: Sequence[int], step: int) -> float:
        times = [self._time(known) for known in history[: self.order + 1]]
        missed = sum(_error(times, self._time(j)) for j in range(history[0] + 1, step))
        return missed / _error(times, self._time(step))

    def _time(self, step: int) -> float:
        return float(step) if self._times is None else self._times[step - 1]


class FittedForecast:
    """The least-squares forecast, from inner products of residuals of calibration runs.

        a = argmin ||R_t - sum_i a_i R_i||^2 = G[i, i]^-1 G[i, t]       G[s, t] = <R_s, R_t>
        k_j = <R_j - forecast(j), R_t - forecast(t)> / ||R_t - forecast(t)||^2

    Where residuals of neighbouring steps differ by what comes and goes, as with a rough embedding
    of the timestep, it trusts their difference less than the polynomial does.

    Args:
        order: one less than the number of residuals.
        gram: G [steps, steps] in float64.
    """

    def __init__(self, order: int, gram: NDArray[np.float64]) -> None:
        self.order = order
        self._gram = gram

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        known = [s - 1 for s in history[: self.order + 1]]
        return tuple(fit(self._gram, known, step - 1).tolist())

    def correction(self, history: Sequence[int], step: int) -> float:
        error = self.error(history, step)
        missed = sum(
            float(error @ self._gram @ self.error(history, j)) for j in range(history[0] + 1, step)
        )
        reach = float(error @ self._gram @ error)
        return missed / reach if reach > 0 else 0.0

    def error(self, history: Sequence[int], step: int) -> NDArray[np.float64]:
        """R_step - forecast(step) in terms of the residuals of all steps."""
        combination = np.zeros(len(self._gram))
        combination[step - 1] = 1.0
        known = [s - 1 for s in history[: self.order + 1]]
        combination[known] -= fit(self._gram, known, step - 1)
        return combination


# Residuals of neighbouring steps are all but parallel (cosine 0.98 to 0.9998), and the products
# come from a sample of their elements: too small a ridge would fit the sample's noise.
RIDGE = 1e-5


def fit(gram: NDArray[np.float64], known: Sequence[int], target: int) -> NDArray[np.float64]:
    """Coefficients of the residuals `known` that come closest to the residual `target`."""
    products = gram[np.ix_(known, known)]
    ridge = RIDGE * np.diag(np.diag(products))
    return np.asarray(np.linalg.solve(products + ridge, gram[known, target]), dtype=np.float64)


def _error(times: Sequence[float], time: float) -> float:
    return math.prod(time - t for t in times)


def _check_monotone(times: Sequence[float]) -> None:
    steps = [b - a for a, b in itertools.pairwise(times)]
    if not all(map(math.isfinite, times)) or not (
        all(s > 0 for s in steps) or all(s < 0 for s in steps)
    ):
        raise ValueError(
            f"the scheduler's times are {tuple(times)}; a forecast needs finite ones that rise or "
            'fall throughout: choose another forecast_time, such as "step"'
        )
