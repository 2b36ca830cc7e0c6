"""Forecasts: the residual of a reused step, extrapolated from those of computed steps.

    F(t) = sum_i a_i R_i

with `t` the reused step, R_0 the newest residual, R_1 the one before it, and so on. The paper
(arXiv 2411.02397) repeats the newest residual, F(t) = R_0; the extrapolation is this package's.

The next computed step `t` has its true residual `R`, and so shows the error R - F(t) of a forecast.
The errors of the reused steps `j` before it are estimated as k_j * (R - F(t)), with k_j = 0 at the
last computed step and 1 at `t`. To compensate for all of them, the computed step adds

    R + c * (R - F(t))        with c = sum_j k_j

instead of R, as the corrector of a predictor-corrector solver does. This counts all solver steps as
equally long: weights by their true lengths changed the mean PSNR of six videos of the demo by -0.4,
+0.6, +1.0 and +0.4 dB at 25, 17, 12 and 9 of 50 even steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Forecast(Protocol):
    """An extrapolation of residuals. Steps count from 1. A history has the newest step first."""

    @property
    def order(self) -> int:
        """Return the degree: the forecast takes order + 1 residuals, or all if there are fewer."""

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        """Return the coefficients a_i of the residuals.

        Args:
            history: computed steps, the newest first. The first order + 1 of them count.
            step: the step to forecast.
        """

    def correction(self, history: Sequence[int], step: int) -> float:
        """Return the factor c of the correction.

        Args:
            history: the computed steps before `step`, the newest first.
            step: the computed step.
        """


class PolynomialForecast:
    """The polynomial through the last residuals (Lagrange interpolation).

        a_i = prod_{m != i} (t - t_m) / (t_i - t_m)
        k_j = e(t_j) / e(t)        with e(x) = prod_i (x - t_i)

    with `t` the time of the step, `t_i` that of R_i, and `t_j` that of a reused step `j`. Order 0
    repeats the newest residual, as the paper does; 1 is a straight line, 2 a parabola.

    Args:
        order: degree of the polynomial.
        times: time of each step, strictly monotone; None: the number of the step.

    Raises:
        ValueError: times are not finite or not strictly monotone.
    """

    def __init__(self, order: int, times: Sequence[float] | None = None) -> None:
        self.order = order
        self._times = None if times is None else tuple(times)
        if self._times is not None:
            _check_monotone(self._times)

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        """Return the coefficients a_i for the first order + 1 steps of `history`."""
        times = [self._time(known) for known in history[: self.order + 1]]
        now = self._time(step)
        return tuple(
            math.prod((now - u) / (t - u) for j, u in enumerate(times) if j != i)
            for i, t in enumerate(times)
        )

    def correction(self, history: Sequence[int], step: int) -> float:
        """Return the factor c of the correction of the computed step `step`."""
        times = [self._time(known) for known in history[: self.order + 1]]
        missed = sum(_error(times, self._time(j)) for j in range(history[0] + 1, step))
        return missed / _error(times, self._time(step))

    def _time(self, step: int) -> float:
        return float(step) if self._times is None else self._times[step - 1]


class FittedForecast:
    """The least-squares forecast for the residuals of the calibration generations.

        a = argmin ||R_t - sum_i a_i R_i||^2 = G[K, K]^-1 G[K, t]        G[s, t] = <R_s, R_t>
        k_j = <R_j - F(j), R_t - F(t)> / ||R_t - F(t)||^2

    with `K` the computed steps, and `t` the step to forecast. If residuals of neighbouring steps
    differ by noise, this forecast extrapolates their difference less than the polynomial does.

    Args:
        order: one less than the number of residuals.
        gram: G, float64 [steps, steps].
    """

    def __init__(self, order: int, gram: NDArray[np.float64]) -> None:
        self.order = order
        self._gram = gram

    def coefficients(self, history: Sequence[int], step: int) -> tuple[float, ...]:
        """Return the coefficients a_i for the first order + 1 steps of `history`."""
        known = [s - 1 for s in history[: self.order + 1]]
        return tuple(fit(self._gram, known, step - 1).tolist())

    def correction(self, history: Sequence[int], step: int) -> float:
        """Return the factor c of the correction of the computed step `step`."""
        error = self.error(history, step)
        missed = sum(
            float(error @ self._gram @ self.error(history, j)) for j in range(history[0] + 1, step)
        )
        reach = float(error @ self._gram @ error)
        return missed / reach if reach > 0 else 0.0

    def error(self, history: Sequence[int], step: int) -> NDArray[np.float64]:
        """Return R - F at `step` as weights of the residuals of all steps: float64 [steps].

        Args:
            history: computed steps, the newest first.
            step: the step to forecast.
        """
        combination = np.zeros(len(self._gram))
        combination[step - 1] = 1.0
        known = [s - 1 for s in history[: self.order + 1]]
        combination[known] -= fit(self._gram, known, step - 1)
        return combination


# Residuals of neighbouring steps are nearly parallel (cosine 0.98 to 0.9998), and their inner
# products come from a sample of the elements. A smaller ridge would fit the noise of the sample.
RIDGE = 1e-5


def fit(gram: NDArray[np.float64], known: Sequence[int], target: int) -> NDArray[np.float64]:
    """Return the coefficients of a ridge regression of one residual on others: float64 [known].

    Args:
        gram: inner products of the residuals, float64 [steps, steps].
        known: rows of `gram` of the residuals to combine, counted from 0.
        target: row of `gram` of the residual to approximate.
    """
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
            f"the scheduler's times are {tuple(times)}; a forecast needs finite times that always "
            'rise or always fall: choose another forecast_time, such as "step"'
        )
