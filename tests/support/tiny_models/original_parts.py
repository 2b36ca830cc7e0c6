"""Modules of which the doubles of original models consist.

No parameter is zero, so that every block adds something.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

CHANNELS, FRAMES, TOKENS, WORDS, HEADS = 12, 3, 16, 5, 2


class Attention(nn.Module):
    """Attention over the tokens of x, or over those of `context`.

    x is `[B, N, C]`, or `[N, B, C]` if tokens come first. If x is `[B, H, W, F, C]`, the attention
    is over its frames.
    """

    def __init__(self, *, tokens_first: bool = False) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.key_value = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.tokens_first = tokens_first
        self.processor = SimpleNamespace(**({"sparse_n": 1} if tokens_first else {}))

    def forward(self, x: Tensor, context: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        if x.ndim == 5:
            return self.forward(x.flatten(0, 2)).view(x.shape)
        context = x if context is None else context
        if self.tokens_first:
            x, context = x.transpose(0, 1), context.transpose(0, 1)
        query, (key, value) = self.query(x), self.key_value(context).chunk(2, dim=-1)
        heads = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value)]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        y = self.out(mixed.transpose(1, 2).flatten(2))
        return y.transpose(0, 1) if self.tokens_first else y


def mlp() -> nn.Module:
    hidden = nn.Linear(CHANNELS, 2 * CHANNELS), nn.Linear(2 * CHANNELS, CHANNELS)
    return nn.Sequential(hidden[0], nn.GELU(approximate="tanh"), hidden[1])


def norm() -> nn.Module:
    return nn.LayerNorm(CHANNELS, elementwise_affine=False)


class Embedded(nn.Module):
    """The parts before and after the blocks: patches of 2 x 2, a time embedding of 6 C."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, CHANNELS), nn.Linear(CHANNELS, 16)
        self.time = nn.Linear(2, 6 * CHANNELS)
        self.patch_size = (1, 2, 2)
        self.config = SimpleNamespace(patch_size_t=1, patch_size=2)

    def patches(self, x: Tensor) -> Tensor:
        """Return the tokens of a video: `[B, 4, F, 8, 8]` to `[B, F * 16, C]`."""
        cut = x.unfold(3, 2, 2).unfold(4, 2, 2).permute(0, 2, 3, 4, 1, 5, 6)
        return self.embed(cut.flatten(4).flatten(1, 3))

    def video(self, tokens: Tensor) -> Tensor:
        """Return the video of tokens: `[B, F * 16, C]` to `[B, 4, F, 8, 8]`."""
        cut = self.head(tokens).view(tokens.shape[0], -1, 4, 4, 4, 2, 2)
        return cut.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4)

    def times(self, timestep: Tensor) -> Tensor:
        angle = timestep.float()[:, None] / 300
        return self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
