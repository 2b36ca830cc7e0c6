"""Make the step clock of a pipeline or a bare model."""

from __future__ import annotations

from torch import nn

from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..engine.clocks.clock import CallClock, StepClock
from ..engine.clocks.scheduler_clock import SchedulerClock
from ..engine.clocks.timestep_clock import TimestepClock


def _check_open_ended(settings: AdaCacheConfig) -> None:
    """What cannot be done on a bare model without its number of steps."""
    needing = {
        "schedule": settings.schedule is not None,
        "profile": settings.profile is not None,
        "forecast_time": settings.forecast_time != "step",
        'decision="graph"': settings.decision == "graph",
    }
    named = [name for name, needs in needing.items() if needs]
    if named:
        raise ValueError(
            f"{named[0]} needs the number of steps, which a bare model cannot tell: give "
            "num_inference_steps=, or patch the pipeline"
        )


def _clock(model: object, settings: AdaCacheConfig | BaselineConfig) -> StepClock:
    if isinstance(model, nn.Module):
        if settings.num_inference_steps is None:
            if isinstance(settings, BaselineConfig):
                raise ValueError(
                    f"{type(settings).__name__} needs the number of steps, which a bare model "
                    "cannot tell: give num_inference_steps=, or patch the pipeline"
                )
            _check_open_ended(settings)
            return TimestepClock(settings.calls_per_step or 1)
        return CallClock(settings.num_inference_steps, settings.calls_per_step or 1)
    if settings.calls_per_step is not None:
        raise ValueError(
            f"calls_per_step={settings.calls_per_step}: a pipeline's scheduler tells where a step "
            "ends; leave it out"
        )
    for name in ("set_timesteps", "step"):
        if not callable(getattr(getattr(model, "scheduler", None), name, None)):
            raise TypeError(
                f"{type(model).__name__} has no .scheduler with .{name}(); patch its transformer "
                "with num_inference_steps="
            )
    return SchedulerClock(model)
