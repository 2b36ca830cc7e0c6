"""`measure_ratios`: the ratios that `MagCacheConfig` needs, from one generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..api.patch import patch, unpatch
from ..api.target import installed_engines
from ..baselines.engine import BaselineEngine
from ..baselines.mag_ratios import RatioRecording, RecordRatiosConfig


def measure_ratios(
    model: Any, generate: Callable[[], Any], num_inference_steps: int | None = None
) -> tuple[float, ...]:
    """Measure the ratios for `MagCacheConfig`, one a step, in an unpatched generation.

        ratios[s] = mean over tokens of ||R_s|| / ||R_(s-1)||;  ratios[0] = 1

    Args:
        model: a pipeline with one transformer, or a transformer; not patched.
        generate: runs one generation with it.
        num_inference_steps: of a bare transformer.

    Raises:
        ValueError: the model is patched or has two transformers, or `generate` did not run a whole
            generation.
    """
    patch(model, RecordRatiosConfig(num_inference_steps=num_inference_steps))
    try:
        engines = installed_engines(model)
        if len(engines) > 1:
            raise ValueError(
                f"{type(model).__name__} has {len(engines)} transformers; measure each by itself"
            )
        (engine,) = engines
        assert isinstance(engine, BaselineEngine)
        generate()
        ratios = _recorded_ratios(engine)
        steps = engine.clock.num_steps
        if len(ratios) != steps or not steps:
            name = type(model).__name__ if isinstance(model, nn.Module) else "the pipeline"
            raise ValueError(
                f"generate() ran {len(ratios)} of {steps} steps of {name}; it must run all of them"
            )
        return ratios
    finally:
        unpatch(model)


def _recorded_ratios(engine: BaselineEngine) -> tuple[float, ...]:
    assert isinstance(engine.mechanism, RatioRecording)
    return engine.mechanism.ratios
