"""A scheduler's own time variables, along which a forecast may be drawn."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..options import ForecastTime


def scheduler_times(scheduler: Any, num_steps: int, kind: ForecastTime) -> list[float]:
    """Time of each of the last `num_steps` steps that the scheduler has set.

        timestep    as the model is given it
        sigma       noise per signal: sqrt(1 - a) / sqrt(a), or the scheduler's own sigmas
        log-snr     log(signal^2 / noise^2); the signal of a flow is 1 - sigma

    Read once a generation, before its first step.

    Raises:
        ValueError: the scheduler does not tell, or some time is infinite.
    """
    timesteps = _values(scheduler.timesteps)[-num_steps:]
    if kind == "timestep":
        return timesteps
    sigmas = _sigmas(scheduler, timesteps, num_steps)
    times = sigmas if kind == "sigma" else [_log_snr(scheduler, sigma) for sigma in sigmas]
    if not all(map(math.isfinite, times)):
        raise ValueError(
            f"forecast_time={kind!r}: {type(scheduler).__name__} begins or ends at an infinite "
            'one; choose "step" or "sigma"'
        )
    return times


def _sigmas(scheduler: Any, timesteps: list[float], num_steps: int) -> list[float]:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) > num_steps:
        return _values(sigmas)[-num_steps - 1 : -1]
    signal = getattr(scheduler, "alphas_cumprod", None)
    if signal is None:
        raise ValueError(
            f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod; choose "
            'forecast_time="step" or "timestep"'
        )
    kept = [float(signal[int(timestep)]) for timestep in timesteps]
    return [math.sqrt((1 - a) / a) if a > 0 else math.inf for a in kept]


def _log_snr(scheduler: Any, sigma: float) -> float:
    signal = 1 - sigma if _is_flow(scheduler) else 1.0
    if signal <= 0 or sigma <= 0 or math.isinf(sigma):
        return math.inf
    return 2 * math.log(signal / sigma)


def _is_flow(scheduler: Any) -> bool:
    config = getattr(scheduler, "config", {})
    return (
        "FlowMatch" in type(scheduler).__name__
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def _values(tensor: torch.Tensor) -> list[float]:
    return [float(value) for value in tensor.tolist()]
