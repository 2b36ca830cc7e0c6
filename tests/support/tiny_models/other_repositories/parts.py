"""Parts of the doubles: attention, modulation, embeddings, and random parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

CHANNELS, WORDS = 12, 5
FRAMES, HEIGHT, WIDTH = 3, 4, 4
TOKENS = FRAMES * (HEIGHT // 2) * (WIDTH // 2)
FACTOR = 2.0
"""Matrices of blocks are this much larger than usual, so that a wrong residual shows."""


class Attention(nn.Module):
    """Attention over the tokens, or to a context, `[B, N, C]`; more arguments are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 2 * CHANNELS)
        self.o = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, context: Tensor | None = None, *_ignored: Any) -> Tensor:
        key, value = self.kv(x if context is None else context).chunk(2, dim=-1)
        weights = (self.q(x) @ key.transpose(-1, -2) / math.sqrt(CHANNELS)).softmax(dim=-1)
        output: Tensor = self.o(weights @ value)
        return output


class TokensFirst(Attention):
    """Attention over `[N, B, C]`."""

    def forward(self, x: Tensor, context: Tensor | None = None, *_ignored: Any) -> Tensor:
        other = None if context is None else context.transpose(0, 1)
        return super().forward(x.transpose(0, 1), other).transpose(0, 1)


def norm() -> nn.LayerNorm:
    return nn.LayerNorm(CHANNELS, elementwise_affine=False)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(CHANNELS, 2 * CHANNELS), nn.GELU(), nn.Linear(2 * CHANNELS, CHANNELS)
    )


class Times(nn.Module):
    """An embedding of a time between 0 and 1, `[B]` to `[B, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * torch.arange(1, CHANNELS + 1)
        embedded: Tensor = self.linear(angles.sin())
        return embedded


class Patches(nn.Module):
    """Video `[B, 4, F, H, W]` to tokens `[B, C, F, H/2, W/2]`, and tokens `[B, N, C]` back."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Conv3d(4, CHANNELS, (1, 2, 2), (1, 2, 2))
        self.outward = nn.Linear(CHANNELS, 16)

    def grid(self, video: Tensor) -> Tensor:
        embedded: Tensor = self.inward(video)
        return embedded

    def tokens(self, video: Tensor) -> Tensor:
        return self.grid(video).flatten(2).transpose(1, 2)

    def video(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        frames, height, width = grid
        pixels = self.outward(tokens).view(len(tokens), frames, height, width, 4, 2, 2)
        video: Tensor = pixels.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        return video


def lively(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give the model random parameters, larger ones in lists of blocks."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2 or "modulation" in name or "table" in name:
                parameter.copy_(0.3 * values)
            else:
                factor = FACTOR if "block" in name or "layers" in name else 1.0
                parameter.copy_(values * factor / math.sqrt(parameter[0].numel()))
    # Not moved to other addresses: over 12 lively steps roundings would grow above the bound.
    return model.eval().requires_grad_(False)
