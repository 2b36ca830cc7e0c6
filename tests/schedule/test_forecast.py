"""Forecasts: polynomials are exact, fits are least squares, corrections add up."""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adacache_kernels.engine.residuals.guidance_branch import Ring
from adacache_kernels.schedule import FittedForecast, PolynomialForecast, evenly_spread
from adacache_kernels.schedule.forecast import RIDGE
from adacache_kernels.schedule.scheduler_times import scheduler_times


def polynomial(order: int, seed: int) -> np.polynomial.Polynomial:
    return np.polynomial.Polynomial(np.random.default_rng(seed).normal(size=order + 1))


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_a_polynomial_of_its_order_is_forecast_exactly(order: int, seed: int) -> None:
    draw = random.Random(seed)
    truth = polynomial(order, seed)
    history = sorted(draw.sample(range(1, 30), order + 1), reverse=True)
    coefficients = PolynomialForecast(order).coefficients(history, 34)
    assert len(coefficients) == order + 1
    assert sum(coefficients) == pytest.approx(1)
    result = sum(a * truth(t) for a, t in zip(coefficients, history, strict=True))
    assert result == pytest.approx(truth(34), rel=1e-9)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_a_polynomial_of_one_order_more_is_corrected_exactly(order: int, seed: int) -> None:
    """The correction adds the sum of the errors of the forecasts."""
    truth = polynomial(order + 1, seed)
    forecast, history, now = PolynomialForecast(order), [9, 5][: order + 1], 14

    def forecast_at(step: int) -> float:
        coefficients = forecast.coefficients(history, step)
        return sum(a * truth(t) for a, t in zip(coefficients, history, strict=True))

    missed = sum(truth(step) - forecast_at(step) for step in range(10, now))
    correction = forecast.correction(history, now) * (truth(now) - forecast_at(now))
    assert correction == pytest.approx(missed, rel=1e-9)


def test_with_too_little_history_the_order_is_lower() -> None:
    assert PolynomialForecast(2).coefficients([3], 5) == (1.0,)
    assert PolynomialForecast(2).coefficients([3, 2], 5) == PolynomialForecast(1).coefficients(
        [3, 2], 5
    )


def test_only_the_newest_residuals_count() -> None:
    assert PolynomialForecast(1).coefficients([9, 7, 2], 11) == (2.0, -1.0)


def test_a_forecast_uses_the_given_times() -> None:
    times = [1.0, 0.9, 0.6, 0.1]
    a, b = PolynomialForecast(1, times).coefficients([2, 1], 4)
    assert a * 0.9 + b * 1.0 == pytest.approx(0.1)


@pytest.mark.parametrize("times", [[1.0, 1.0, 0.5], [1.0, 0.5, 0.7], [float("inf"), 1.0, 0.5]])
def test_times_that_do_not_fit_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="forecast_time"):
        PolynomialForecast(1, times)


def residuals(steps: int = 12, seed: int = 0) -> np.ndarray:
    """Return residuals [steps, 300]: a slow drift, and noise in every step."""
    draw = np.random.default_rng(seed)
    drift = np.outer(np.linspace(0, 1, steps), draw.normal(size=300)) + draw.normal(size=300)
    return drift + 0.1 * draw.normal(size=(steps, 300))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_fit_is_least_squares(order: int) -> None:
    """The fit equals numpy's lstsq within the influence of the ridge.

    The ridge changes coefficients by at most its size over the smallest eigenvalue of the scaled
    products, 0.004 here.
    """
    rows = residuals()
    history, step = [8, 5, 3][: order + 1], 10
    result = FittedForecast(order, rows @ rows.T).coefficients(history, step)
    known = rows[[s - 1 for s in history]].T
    expected = np.linalg.lstsq(known, rows[step - 1], rcond=None)[0]
    assert np.allclose(result, expected, atol=5 * RIDGE / 0.004)


def test_the_fitted_correction_projects_the_errors_on_the_last_one() -> None:
    rows = residuals()
    forecast = FittedForecast(1, rows @ rows.T)
    history, now = [6, 3], 10

    def error(step: int) -> np.ndarray:
        a, b = forecast.coefficients(history, step)
        return np.asarray(rows[step - 1] - a * rows[5] - b * rows[2])

    missed = sum(error(step) for step in range(7, now))
    expected = missed @ error(now) / (error(now) @ error(now))
    assert forecast.correction(history, now) == pytest.approx(expected, rel=1e-6)


def test_nothing_is_corrected_where_nothing_was_missed() -> None:
    assert PolynomialForecast(1).correction([4, 3], 5) == 0
    rows = residuals()
    assert FittedForecast(1, rows @ rows.T).correction([4, 3], 5) == 0


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_ring_holds_the_newest_steps_each_at_its_own_index(depth: int) -> None:
    ring = Ring(depth)
    for step in range(1, 12):
        ring_index = ring.claim()
        assert 0 <= ring_index < depth
        assert ring_index not in ring.indices
        ring.push(step, ring_index)
        assert ring.steps == tuple(range(step, max(0, step - depth), -1))
        assert len(set(ring.indices)) == len(ring.indices)


def test_a_ring_drops_steps() -> None:
    ring = Ring(3)
    for step in (1, 2, 3):
        ring.push(step, ring.claim())
    ring.drop([3])
    assert ring.steps == (2, 1)
    ring.clear()
    assert ring.steps == ()


@pytest.mark.parametrize(("count", "steps"), [(25, 50), (17, 50), (12, 50), (9, 50), (34, 100)])
def test_evenly_spread_steps(count: int, steps: int) -> None:
    result = evenly_spread(count, steps)
    assert len(set(result)) == count
    assert (result[0], result[-2], result[-1]) == (1, steps - 1, steps)
    gaps = [b - a for a, b in itertools.pairwise(result[:-1])]
    assert max(gaps) - min(gaps) <= 1


def test_evenly_spread_is_checked() -> None:
    with pytest.raises(ValueError, match="count is 51"):
        evenly_spread(51, 50)


def test_times_of_schedulers() -> None:
    """Times follow their definitions: the products of DDPM, and the sigmas of a flow."""
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    ddim = DDIMScheduler(timestep_spacing="trailing")
    ddim.set_timesteps(10)
    squared = ddim.alphas_cumprod[ddim.timesteps]
    assert scheduler_times(ddim, 10, "timestep") == ddim.timesteps.tolist()
    sigma = ((1 - squared) / squared).sqrt()
    assert scheduler_times(ddim, 10, "sigma") == pytest.approx(sigma.tolist(), rel=1e-5)
    expected = (squared / (1 - squared)).log().tolist()
    assert scheduler_times(ddim, 10, "log-snr") == pytest.approx(expected, rel=1e-4)
    assert scheduler_times(ddim, 4, "timestep") == ddim.timesteps.tolist()[-4:]

    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(10)
    assert scheduler_times(flow, 10, "sigma") == pytest.approx(flow.sigmas[:-1].tolist())
    with pytest.raises(ValueError, match="infinite"):
        scheduler_times(flow, 10, "log-snr")


def test_a_step_without_signal_has_no_finite_time() -> None:
    """DDPM schedules that are rescaled end in pure noise."""
    noise = SimpleNamespace(
        timesteps=torch.tensor([2, 1]), alphas_cumprod=torch.tensor([0.9, 0.5, 0.0])
    )
    assert scheduler_times(noise, 1, "sigma") == [1.0]
    with pytest.raises(ValueError, match="infinite"):
        scheduler_times(noise, 2, "sigma")


def test_the_signal_of_a_flow_is_what_the_noise_leaves() -> None:
    flow = SimpleNamespace(
        timesteps=torch.tensor([800, 500]),
        sigmas=torch.tensor([0.8, 0.5, 0.0]),
        config={"prediction_type": "flow_prediction"},
    )
    expected = [2 * math.log(0.2 / 0.8), 0.0]
    assert scheduler_times(flow, 2, "log-snr") == pytest.approx(expected, abs=1e-6)
