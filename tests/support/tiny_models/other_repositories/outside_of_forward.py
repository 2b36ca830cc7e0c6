"""A double of DiffSynth-Studio: a function of the pipeline walks over the blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    Attention,
    Patches,
    Times,
    lively,
    mlp,
    norm,
)


class DiTBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(), norm()
        self.self_attn, self.cross_attn, self.ffn = Attention(), Attention(), mlp()
        self.modulation = nn.Parameter(torch.zeros(1, 4, CHANNELS))

    def forward(self, x: Tensor, context: Tensor, t_mod: Tensor, freqs: Any) -> Tensor:
        scale1, gate1, scale2, gate2 = (self.modulation + t_mod).chunk(4, dim=1)
        x = x + gate1 * self.self_attn(self.norm1(x) * (1 + scale1), None, freqs)
        x = x + self.cross_attn(x, context)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2))


class WanModel(nn.Module):
    """A model whose forward is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.time_embedding = Patches(), Times()
        self.time_projection = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.blocks = nn.ModuleList(DiTBlock() for _ in range(4))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        return walk(self, x, timestep, context)


def walk(dit: nn.Module, latents: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
    """Run everything that the model consists of, without its forward."""
    t_mod = dit.time_projection(dit.time_embedding(timestep)).unflatten(1, (4, CHANNELS))
    x = dit.patches.tokens(latents)  # type: ignore[operator, union-attr]
    for block in dit.blocks:  # type: ignore[union-attr]
        x = block(x, context, t_mod, None)
    video: Tensor = dit.patches.video(x, (3, 2, 2))  # type: ignore[operator, union-attr]
    return video


def predict(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    return walk(model, x, t.unsqueeze(0), prompt)


OUTSIDE = {
    "diffsynth wan": Double(
        "DiffSynth-Studio, Wan",
        lambda: lively(WanModel()),
        predict,
        {"blocks": {"x": None}},
        reason="blocks",
    )
}
