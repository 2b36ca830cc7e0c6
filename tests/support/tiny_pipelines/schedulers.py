"""Schedulers of the pipelines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def scheduler(name: str, **config: Any) -> Any:
    import diffusers

    return getattr(diffusers, name)(**config)


def scheduler_class(name: str, **config: Any) -> Callable[[], Any]:
    """Return a function without arguments that makes this scheduler."""
    return partial(scheduler, name, **config)


def ddim() -> Any:
    return scheduler("DDIMScheduler", timestep_spacing="trailing", clip_sample=False)


def euler(**config: Any) -> Any:
    return scheduler("FlowMatchEulerDiscreteScheduler", **config)


def unipc() -> Any:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return scheduler("UniPCMultistepScheduler", **flow)
