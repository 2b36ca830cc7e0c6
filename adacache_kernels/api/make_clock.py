"""Make the step clock of a pipeline or of bare models."""

from __future__ import annotations

from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..engine.clocks.scheduler_watch import SchedulerWatch
from ..engine.clocks.step_clock import StepClock
from .target import is_pipeline

Settings = AdaCacheConfig | BaselineConfig


def make_clock(model: object, settings: Settings) -> StepClock:
    """Return the clock of a pipeline, or of bare models.

    Raises:
        TypeError: `model` is a pipeline without a scheduler that can be watched.
        ValueError: a bare model needs its number of steps, or a pipeline is given calls_per_step.
    """
    setting = _setting_that_needs_steps(settings)
    if is_pipeline(model):
        _check_pipeline(model, settings)
        return StepClock(watch=SchedulerWatch(model), needs_steps=setting)
    if settings.num_inference_steps is None and setting:
        raise ValueError(
            f"{setting} needs the number of steps, which a bare model does not show: give "
            "num_inference_steps=, or patch the pipeline"
        )
    return StepClock(settings.num_inference_steps, settings.calls_per_step)


def _check_pipeline(pipeline: object, settings: Settings) -> None:
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


def _setting_that_needs_steps(settings: Settings) -> str:
    """Return the name of a setting that needs the number of steps; "" if there is none."""
    if isinstance(settings, BaselineConfig):
        return type(settings).__name__
    needs_steps = {
        "schedule": settings.schedule is not None,
        "profile": settings.profile is not None,
        "forecast_time": settings.forecast_time != "step",
        'decision="graph"': settings.decision == "graph",
    }
    return next((name for name, needs in needs_steps.items() if needs), "")
