"""Inner products and sensitivities of made-up residuals, and a profile of a tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adacache_kernels import make_profile
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY

STEPS = 12


def gram(steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """Return the inner products of residuals that drift along a random curve: [steps, steps]."""
    draw = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps)[:, None]
    rows = sum(time**power * draw.normal(size=(1, 400)) for power in range(5))
    rows = rows + 0.02 * draw.normal(size=(steps, 400))
    return np.asarray(rows @ rows.T)


def sensitivity(steps: int = STEPS) -> np.ndarray:
    return np.exp(2 * np.sin(np.linspace(0, 5, steps)))


@pytest.fixture(scope="session")
def tiny_profile() -> Profile:
    """Calibrate a profile of a tiny model."""
    tiny = TINY["wan"]
    model = tiny.build()

    def run(seed: int) -> Any:
        latents = tiny.noise(seed=seed)
        with torch.no_grad():
            for step in range(1, STEPS + 1):
                latents = latents - 0.05 * tiny.call(model, latents, step)
        return latents

    return make_profile(model, range(3), run, trials=6, num_inference_steps=STEPS)
