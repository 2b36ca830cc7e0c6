"""Two tiny pipelines: Latte, which guides in one call a step, and Wan, which guides in two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.video_pipelines import VIDEOS

LATTE, WAN = VIDEOS["latte"], VIDEOS["wan"]
STEPS = 8


def latte() -> Any:
    return LATTE.build()


def wan(**parts: Any) -> Any:
    """Build Wan's pipeline with further arguments of its constructor."""
    return replace(WAN, parts=lambda: parts).build()


def run_latte(pipe: Any, steps: int = STEPS, **overrides: Any) -> Tensor:
    """Return the latents that `pipe` makes with guidance."""
    return LATTE.call(pipe, num_inference_steps=steps, guidance_scale=4.0, **overrides)


def run_wan(pipe: Any, steps: int = STEPS, guidance: float = 4.0, **overrides: Any) -> Tensor:
    """Return the latents that `pipe` makes with guidance of that scale."""
    return WAN.call(pipe, num_inference_steps=steps, guidance_scale=guidance, **overrides)


def embeds(channels: int, seed: int) -> Tensor:
    """Return embeddings of a text, `[1, 6, channels]`."""
    return noise(1, 6, channels, seed=seed)
