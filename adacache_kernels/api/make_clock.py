"""Make the step clock of a pipeline or a bare model."""

from __future__ import annotations

from torch import nn

from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..engine.clocks.call_clock import CallClock
from ..engine.clocks.clock import StepClock
from ..engine.clocks.scheduler_clock import SchedulerClock
from ..engine.clocks.timestep_clock import TimestepClock

Settings = AdaCacheConfig | BaselineConfig


def make_clock(model: object, settings: Settings) -> StepClock:
    """Return the clock of a pipeline or a bare model.

    Raises:
        TypeError: `model` is a pipeline without a scheduler that can be watched.
        ValueError: a bare model needs its number of steps, or a pipeline is given calls_per_step.
    """
    if not isinstance(model, nn.Module):
        return _clock_of_pipeline(model, settings)
    calls_per_step = settings.calls_per_step or 1
    if settings.num_inference_steps is not None:
        return CallClock(settings.num_inference_steps, calls_per_step)
    _check_unknown_steps(settings)
    return TimestepClock(calls_per_step)


def _clock_of_pipeline(pipeline: object, settings: Settings) -> StepClock:
    if settings.calls_per_step is not None:
        raise ValueError(
            f"calls_per_step={settings.calls_per_step}: a pipeline's scheduler shows where a step "
            "ends; leave it out"
        )
    for name in ("set_timesteps", "step"):
        if not callable(getattr(getattr(pipeline, "scheduler", None), name, None)):
            raise TypeError(
                f"{type(pipeline).__name__} has no .scheduler with .{name}(); patch its "
                "transformer with num_inference_steps="
            )
    return SchedulerClock(pipeline)


def _check_unknown_steps(settings: Settings) -> None:
    """Refuse settings that need the number of steps of a bare model."""
    name = _setting_that_needs_steps(settings)
    if name is not None:
        raise ValueError(
            f"{name} needs the number of steps, which a bare model does not show: give "
            "num_inference_steps=, or patch the pipeline"
        )


def _setting_that_needs_steps(settings: Settings) -> str | None:
    if isinstance(settings, BaselineConfig):
        return type(settings).__name__
    needs_steps = {
        "schedule": settings.schedule is not None,
        "profile": settings.profile is not None,
        "forecast_time": settings.forecast_time != "step",
        'decision="graph"': settings.decision == "graph",
    }
    return next((name for name, needs in needs_steps.items() if needs), None)
