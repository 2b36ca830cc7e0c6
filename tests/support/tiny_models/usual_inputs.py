"""Inputs that most transformers of diffusers take: latents, a text, a timestep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.description import noise

TEXT = noise(1, 6, 16, seed=100)


def timestep(step: int) -> Tensor:
    """Return an integer timestep, which falls."""
    return torch.full((1,), 930 - 30 * step)


def unit_time(step: int) -> Tensor:
    """Return a time between 1 and 0, which falls."""
    return torch.full((1,), 0.93 - 0.03 * step)


def rising_time(step: int) -> Tensor:
    """Return a time between 0 and 1, which rises."""
    return torch.full((1,), 0.07 + 0.03 * step)


def usual(latents: Tensor, step: int, **others: Any) -> dict[str, Any]:
    """Return latents, text and timestep, and `others` beside or instead of them."""
    given = {"hidden_states": latents, "encoder_hidden_states": TEXT, "timestep": timestep(step)}
    return {**given, **others}
