"""Tiny random models of every supported class, and a denoising loop to run them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.addresses import moved

COGVIDEOX = dict(
    num_attention_heads=2,
    attention_head_dim=8,
    in_channels=4,
    out_channels=4,
    time_embed_dim=8,
    text_embed_dim=8,
    num_layers=3,
    sample_width=8,
    sample_height=8,
    sample_frames=13,
    patch_size=2,
    temporal_compression_ratio=4,
    max_text_seq_length=6,
)
WAN = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=4,
    text_dim=16,
    freq_dim=32,
    ffn_dim=32,
    num_layers=3,
    cross_attn_norm=True,
    qk_norm="rms_norm_across_heads",
    rope_max_seq_len=32,
)
LATTE = dict(
    sample_size=8,
    num_layers=3,
    patch_size=2,
    attention_head_dim=8,
    num_attention_heads=2,
    caption_channels=8,
    in_channels=4,
    cross_attention_dim=16,
    out_channels=4,
    attention_bias=True,
    activation_fn="gelu-approximate",
    norm_type="ada_norm_single",
    norm_elementwise_affine=False,
    norm_eps=1e-6,
    video_length=4,
)
ALLEGRO = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=4,
    num_layers=3,
    cross_attention_dim=24,
    sample_width=8,
    sample_height=8,
    sample_frames=4,
    caption_channels=8,
)


@dataclass(frozen=True)
class Tiny:
    """A model class with a config, the latents' shape, text channels, and its block lists.

    `streams` counts hidden streams times layouts: the residuals that its cache holds.
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
        """The model in evaluation mode, with nothing left at zero."""
        import diffusers

        torch.manual_seed(seed)
        model: nn.Module = getattr(diffusers, self.cls)(**self.config).eval()
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.abs().max() == 0:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        return moved(model)

    def noise(self, batch: int = 1, seed: int = 0) -> Tensor:
        """Latents to begin with."""
        return torch.randn(batch, *self.latents, generator=torch.Generator().manual_seed(seed))

    def text(self, batch: int = 1, seed: int = 100) -> Tensor:
        """Text embeddings."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, 6, self.text_channels, generator=generator)

    def call(self, model: nn.Module, latents: Tensor, step: int, text_seed: int = 100) -> Tensor:
        """One forward at step `step`, counted from 1."""
        batch = latents.shape[0]
        output: Tensor = model(
            hidden_states=latents,
            encoder_hidden_states=self.text(batch, text_seed).to(latents),
            timestep=torch.full((batch,), 930 - 30 * step),
            return_dict=False,
            **self.extra(batch),
        )[0]
        return output


TINY: dict[str, Tiny] = {
    "latte": Tiny(
        "LatteTransformer3DModel",
        LATTE,
        (4, 4, 8, 8),
        8,
        ("transformer_blocks", "temporal_transformer_blocks"),
        frames=4,
        streams=1,
    ),
    "allegro": Tiny(
        "AllegroTransformer3DModel",
        ALLEGRO,
        (4, 4, 8, 8),
        8,
        ("transformer_blocks",),
        frames=4,
        streams=1,
        extra=lambda batch: {"encoder_attention_mask": torch.ones(batch, 6)},
    ),
    "wan": Tiny("WanTransformer3DModel", WAN, (4, 3, 8, 8), 16, ("blocks",), frames=3, streams=1),
    "cogvideox": Tiny(
        "CogVideoXTransformer3DModel",
        dict(COGVIDEOX, patch_size_t=None),
        (4, 4, 8, 8),
        8,
        ("transformer_blocks",),
        frames=4,
        streams=2,
    ),
    "cogvideox15": Tiny(
        "CogVideoXTransformer3DModel",
        dict(COGVIDEOX, patch_size_t=2, use_rotary_positional_embeddings=True, patch_bias=False),
        (4, 4, 8, 8),
        8,
        ("transformer_blocks",),
        frames=2,
        streams=2,
        extra=lambda batch: {"image_rotary_emb": (torch.ones(32, 8), torch.zeros(32, 8))},
    ),
}
FOUR = ("latte", "allegro", "wan", "cogvideox")


def denoise(
    tiny: Tiny, model: nn.Module, steps: int, batch: int = 1, scale: float = 0.05
) -> list[Tensor]:
    """Latents after every step of `x <- x - scale * model(x)`."""
    latents, trajectory = tiny.noise(batch), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            latents = latents - scale * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory
