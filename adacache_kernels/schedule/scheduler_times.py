"""The time variables of a scheduler, in which a forecast may extrapolate."""

from __future__ import annotations

import math
from typing import Any

from ..options import ForecastTime


def scheduler_times(scheduler: Any, num_steps: int, kind: ForecastTime) -> list[float]:
    """Return the time of each of the last `num_steps` steps of the scheduler.

        timestep    the argument of the model
        sigma       noise / signal: the scheduler's own sigmas, or sqrt(1 - a) / sqrt(a)
        log-snr     log(signal^2 / noise^2)

    with `a` the cumulative product `alphas_cumprod` of DDPM (arXiv 2006.11239), the squared signal.
    The signal of a flow is 1 - sigma. The function is called once a generation, before its first
    step.

    Args:
        scheduler: a scheduler of diffusers whose timesteps are set.
        num_steps: number of steps of the generation.
        kind: "timestep", "sigma" or "log-snr".

    Raises:
        ValueError: the scheduler has neither sigmas nor alphas_cumprod, or a time is infinite.
    """
    timesteps = _values(scheduler.timesteps)[-num_steps:]
    if kind == "timestep":
        return timesteps
    sigmas = _sigmas(scheduler, timesteps, num_steps)
    times = sigmas if kind == "sigma" else [_log_snr(scheduler, sigma) for sigma in sigmas]
    if not all(map(math.isfinite, times)):
        raise ValueError(
            f"forecast_time={kind!r}: the first or last time of {type(scheduler).__name__} is "
            'infinite; choose "step" or "sigma"'
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
    squared = [float(signal[int(timestep)]) for timestep in timesteps]
    return [math.sqrt((1 - a) / a) if a > 0 else math.inf for a in squared]


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


def _values(tensor: Any) -> list[float]:
    """Return the elements of a tensor [steps]."""
    return [float(value) for value in tensor.tolist()]
