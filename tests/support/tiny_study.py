"""A tiny pipeline for `adacache bench quality`, and made-up rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adacache_kernels.evaluate.method_spec import Method, parse_methods
from adacache_kernels.evaluate.pipelines import Subject
from adacache_kernels.evaluate.results import Case, Row
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

STEPS = 8


def subject() -> Subject:
    """Return the tiny Latte, with its latents as frames."""
    pipe = latte()

    def generate(prompt: str, steps: int, seed: int) -> Any:
        scale = 1 + 0.1 * len(prompt) + seed
        latents = run_latte(pipe, steps, latents=torch.ones(1, 4, 4, 8, 8) * scale)
        frames = torch.sigmoid(latents)[0].permute(1, 2, 3, 0)[..., :3].repeat(1, 2, 2, 1)
        return frames.numpy().astype(np.float32)

    return Subject(pipe, generate)


def parsed(*names: str) -> list[Method]:
    return parse_methods(names, STEPS)


NAMES = (
    "adacache:codebook={inf: 3}".replace("inf", "9e9"),
    "even:5:forecast=1",
    "steps:4",
    "steps:4:UniPCMultistepScheduler",
)
CASES = [Case("a", 0), Case("bc", 0), Case("a", 1)]


def fixed_row(method: str, psnr: float | None, computed: int, seconds: float, **other: Any) -> Row:
    values: dict[str, Any] = {
        "curve": method, "prompt": "a", "seed": 0, "scheduled": 10, "ssim": 0.9, "lpips": None,
        "pipeline_seconds": seconds + 1, "full_seconds": 8.0, "full_pipeline_seconds": 9.0,
        "flops": None, "peak_bytes": None, "cache_bytes": 2**20, "waits": 5, "computed_steps": [],
        "distances": [],
    }  # fmt: skip
    row = {"method": method, "psnr": psnr, "computed": computed, "seconds": seconds}
    return Row(**values | row | other)
