"""Tiny random models of the four main families, in batches, and a denoising loop for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import build_model, description, noise


@dataclass(frozen=True)
class Tiny:
    """A model class, its constructor's arguments, its structure, and how a batch is made.

    Args:
        cls: name of the class in diffusers.
        config: arguments of its constructor.
        latents: shape of the latents of one video, without the batch.
        text_channels: channels of the text's embeddings.
        lists: attributes of its block lists.
        frames: frames of tokens.
        streams: hidden streams times layouts: the residuals that its cache holds.
        extra: further arguments of the forward, for a batch size.
    """

    cls: str
    config: dict[str, Any]
    latents: tuple[int, ...]
    text_channels: int
    lists: tuple[str, ...]
    frames: int
    streams: int
    extra: Callable[[int], dict[str, Any]] = lambda batch: {}

    def build(self, seed: int = 0) -> nn.Module:
        """Build the model; the same seed gives the same parameters."""
        return build_model(self.cls, self.config, seed)

    def noise(self, batch: int = 1, seed: int = 0) -> Tensor:
        """Return the latents of the first step, `[batch, *latents]`."""
        return noise(batch, *self.latents, seed=seed)

    def text(self, batch: int = 1, seed: int = 100) -> Tensor:
        """Return text embeddings, `[batch, 6, text_channels]`."""
        return noise(batch, 6, self.text_channels, seed=seed)

    def call(self, model: nn.Module, latents: Tensor, step: int, text_seed: int = 100) -> Tensor:
        """Run one forward at step `step`, counted from 1; return the prediction."""
        batch = latents.shape[0]
        output: Tensor = model(
            hidden_states=latents,
            encoder_hidden_states=self.text(batch, text_seed).to(latents),
            timestep=torch.full((batch,), 930 - 30 * step),
            return_dict=False,
            **self.extra(batch),
        )[0]
        return output


def _tiny(name: str, text_channels: int, **others: Any) -> Tiny:
    entry = description(name)
    return Tiny(
        cls=entry["class"],
        config=entry["config"],
        latents=tuple(entry["latents"][1:]),
        text_channels=text_channels,
        lists=tuple(entry["lists"]),
        frames=entry["frames"],
        streams=len(entry["streams"]),
        **others,
    )


def allegro_extra(batch: int) -> dict[str, Any]:
    return {"encoder_attention_mask": torch.ones(batch, 6)}


def cogvideox15_extra(batch: int) -> dict[str, Any]:
    return {"image_rotary_emb": (torch.ones(32, 8), torch.zeros(32, 8))}


TINY: dict[str, Tiny] = {
    "latte": _tiny("latte", 8),
    "allegro": _tiny("allegro", 8, extra=allegro_extra),
    "wan": _tiny("wan", 16),
    "cogvideox": _tiny("cogvideox", 8),
    "cogvideox15": _tiny("cogvideox15", 8, extra=cogvideox15_extra),
}
FOUR = ("latte", "allegro", "wan", "cogvideox")


def denoise(
    tiny: Tiny, model: nn.Module, steps: int, batch: int = 1, scale: float = 0.05
) -> list[Tensor]:
    """Return the latents after every step of `x <- x - scale * model(x)`."""
    latents, trajectory = tiny.noise(batch), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            latents = latents - scale * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory
