"""Make the policy and the forecast of one generation from the settings."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..models import Adapter
from ..schedule import (
    AdaCachePolicy,
    FixedPolicy,
    Forecast,
    Policy,
    PolynomialForecast,
    ProfilePolicy,
)
from ..schedule.calibrated_for import identity
from ..schedule.scheduler_times import scheduler_times
from .clocks.clock import UNKNOWN_STEPS

NO_END = 2**31


def make_policy(config: AdaCacheConfig, num_steps: int) -> Policy:
    """Return the policy of a generation of `num_steps`, as the clock reports them.

    Raises:
        ValueError: the schedule in the settings goes beyond the last step.
    """
    if config.schedule is not None:
        return FixedPolicy(num_steps, config.schedule) if num_steps else AdaCachePolicy(0)
    profile = config.loaded_profile
    if profile is not None:
        assert config.computed_steps is not None
        plan = profile.plan(config.forecast)
        most = config.max_continuous_cached_steps
        return ProfilePolicy(
            plan,
            plan.price_for(config.computed_steps),
            partial(profile.expected_error, config.forecast),
            config.adaptivity,
            warmup_steps=config.max_warmup_steps,
            longest=None if most is None else most + 1,
        )
    last = NO_END if num_steps == UNKNOWN_STEPS else num_steps
    return AdaCachePolicy(last, config.max_warmup_steps)


def make_forecast(config: AdaCacheConfig, num_steps: int, scheduler: Any) -> Forecast:
    """Return the forecast of a generation of `num_steps`.

    Raises:
        ValueError: `forecast_time` needs a scheduler and there is none, the scheduler does not
            have such a time, or the time does not fit a forecast.
    """
    profile = config.loaded_profile
    if profile is not None:
        return profile.forecast(config.forecast)
    if config.forecast_time == "step" or num_steps == 0:
        return PolynomialForecast(config.forecast)
    if scheduler is None:
        raise ValueError(
            f"forecast_time={config.forecast_time!r}: a bare model has no scheduler to ask; patch "
            'the pipeline, or choose "step"'
        )
    return PolynomialForecast(
        config.forecast, scheduler_times(scheduler, num_steps, config.forecast_time)
    )


def check_profile(config: AdaCacheConfig, model: nn.Module, scheduler: Any, num_steps: int) -> None:
    """Check that the profile and the calibration in the settings fit model, scheduler and steps.

    Args:
        config: the settings.
        model: the transformer.
        scheduler: the scheduler of the pipeline, None for a bare model.
        num_steps: the number of steps; 0, before the first generation of a pipeline, fits any.

    Raises:
        ValueError: one of them was made for another model, scheduler or number of steps.
    """
    profile, calibrated_for = config.loaded_profile, config.calibrated_for
    if profile is None and calibrated_for is None:
        return
    own_model = identity(model)
    own_scheduler = None if scheduler is None else identity(scheduler)
    if calibrated_for is not None:
        steps = num_steps or calibrated_for.num_steps
        without = "patch with other settings"
        calibrated_for.check(own_model, own_scheduler, steps, "the calibration", without)
    if profile is not None:
        profile.check(own_model, own_scheduler, num_steps or profile.num_steps)


def check_correctable(model: nn.Module, adapter: Adapter) -> None:
    """Check that every stream leaves the last block list, where a correction is added.

    Raises:
        ValueError: a stream does not leave it, or each sweep would need a correction of its own.
    """
    if adapter.sweeps > 1:
        raise ValueError(
            f"correct=True: {type(model).__name__} runs its blocks {adapter.sweeps} times in one "
            "forward call, and only a model that runs them once can be corrected; leave it out"
        )
    lists = adapter.residual_lists
    leaving = {stream.parameter for stream in lists[-1].streams} | set(lists[-1].joined)
    entering = {stream.parameter for blocks in lists for stream in blocks.streams}
    if not entering <= leaving:
        raise ValueError(
            f"correct=True: in {type(model).__name__}, {', '.join(entering - leaving)} does not "
            "leave the last list of blocks, so it cannot be corrected"
        )
