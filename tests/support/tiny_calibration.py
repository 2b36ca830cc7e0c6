"""Generations of a tiny model, for calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.support.tiny_models.common_models import TINY

STEPS = 12
TINY_WAN = TINY["wan"]
Generate = Callable[[int], Any]


def denoising(model: nn.Module, steps: int = STEPS) -> Generate:
    """Return a function from a seed to an outcome with values in 0 to 1."""

    def run(seed: int) -> Any:
        latents = TINY_WAN.noise(seed=seed)
        with torch.no_grad():
            for step in range(1, steps + 1):
                latents = latents - 0.05 * TINY_WAN.call(model, latents, step)
        return torch.sigmoid(latents)

    return run
