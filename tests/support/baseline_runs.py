"""What the tests of the methods to compare with share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.baselines import relative
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 9
# What a chain of blocks added is kept as one sum, the oracle keeps one number a block: over 9 steps
# float32 rounding of some 40 additions, 40 * 6e-8 of the largest value.
ROUNDING = 3e-6


def run_patched(
    name: str, config: Any, steps: int = STEPS, model: nn.Module | None = None
) -> tuple[list[Tensor], ak.Summary]:
    """Return the latents after every step, and the summary; of that model, or of a new one."""
    tiny = TINY[name]
    model = ak.patch(model or tiny.build(), config, num_inference_steps=steps)
    return denoise(tiny, model, steps), ak.summary(model)


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Compare two runs of one model, whose parameters lie where they lay."""
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < ROUNDING


# Between what the blocks of the tiny models measure.
THRESHOLDS = {"latte": (0.06, 0.14), "wan": (0.055, 0.075), "cogvideox": (0.28, 0.305)}
