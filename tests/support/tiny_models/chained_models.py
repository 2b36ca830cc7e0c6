"""Tiny random models of the classes that are supported by data alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.addresses import moved
from tests.support.tiny_models.common_models import WAN

HUNYUAN: dict[str, Any] = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=10,
    num_layers=2,
    num_single_layers=2,
    num_refiner_layers=1,
    patch_size=2,
    patch_size_t=1,
    guidance_embeds=True,
    text_embed_dim=16,
    pooled_projection_dim=8,
    rope_axes_dim=(2, 4, 4),
)
LTX: dict[str, Any] = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=8,
    cross_attention_dim=16,
    num_layers=3,
    qk_norm="rms_norm_across_heads",
    caption_channels=16,
)
MOCHI: dict[str, Any] = dict(
    patch_size=2,
    num_attention_heads=2,
    attention_head_dim=8,
    num_layers=3,
    pooled_projection_dim=16,
    in_channels=4,
    out_channels=None,
    qk_norm="rms_norm",
    text_embed_dim=16,
    time_embed_dim=4,
    activation_fn="swiglu",
    max_sequence_length=6,
)
COSMOS: dict[str, Any] = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=12,
    num_layers=3,
    mlp_ratio=2,
    text_embed_dim=16,
    adaln_lora_dim=4,
    max_size=(4, 32, 32),
    patch_size=(1, 2, 2),
    rope_scale=(2.0, 1.0, 1.0),
    concat_padding_mask=False,
    extra_pos_embed_type="learnable",
)
EASYANIMATE: dict[str, Any] = dict(
    attention_head_dim=16,
    num_attention_heads=2,
    in_channels=4,
    mmdit_layers=2,
    num_layers=3,
    out_channels=4,
    patch_size=2,
    sample_height=60,
    sample_width=90,
    text_embed_dim=16,
    time_embed_dim=8,
    time_position_encoding_type="3d_rope",
    timestep_activation_fn="silu",
)
HUNYUAN15: dict[str, Any] = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=8,
    num_layers=3,
    num_refiner_layers=1,
    mlp_ratio=2.0,
    patch_size=1,
    patch_size_t=1,
    text_embed_dim=16,
    text_embed_2_dim=8,
    image_embed_dim=12,
    rope_axes_dim=(2, 2, 4),
    target_size=16,
    task_type="t2v",
)
SANA: dict[str, Any] = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=12,
    num_layers=3,
    num_cross_attention_heads=2,
    cross_attention_head_dim=12,
    cross_attention_dim=24,
    caption_channels=16,
    mlp_ratio=2.5,
    sample_size=8,
    patch_size=(1, 2, 2),
    qk_norm="rms_norm_across_heads",
    rope_max_seq_len=32,
)


DIT: dict[str, Any] = dict(
    in_channels=4,
    out_channels=8,
    activation_fn="gelu-approximate",
    num_attention_heads=2,
    attention_head_dim=4,
    attention_bias=True,
    num_layers=3,
    norm_type="ada_norm_zero",
    num_embeds_ada_norm=8,
    patch_size=2,
    sample_size=8,
)
PIXART: dict[str, Any] = dict(
    sample_size=8,
    num_layers=3,
    patch_size=2,
    attention_head_dim=4,
    num_attention_heads=2,
    in_channels=4,
    cross_attention_dim=8,
    out_channels=8,
    attention_bias=True,
    activation_fn="gelu-approximate",
    num_embeds_ada_norm=8,
    norm_type="ada_norm_single",
    norm_elementwise_affine=False,
    norm_eps=1e-6,
    use_additional_conditions=False,
    caption_channels=None,
)
SANA_IMAGE: dict[str, Any] = dict(
    patch_size=1,
    in_channels=4,
    out_channels=4,
    num_layers=3,
    attention_head_dim=4,
    num_attention_heads=2,
    num_cross_attention_heads=2,
    cross_attention_head_dim=4,
    cross_attention_dim=8,
    caption_channels=8,
    sample_size=8,
)
FLUX: dict[str, Any] = dict(
    patch_size=1,
    in_channels=4,
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    pooled_projection_dim=32,
    axes_dims_rope=[4, 4, 8],
)
QWEN: dict[str, Any] = dict(
    patch_size=2,
    in_channels=16,
    out_channels=4,
    num_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=16,
    guidance_embeds=False,
    axes_dims_rope=(8, 4, 4),
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class TinyClass:
    """A class with its config, the latents' shape, and what else its forward takes.

    Args:
        name: of the class in diffusers.
        config: of the model.
        lists: attributes of its block lists.
        streams: hidden streams of a block, in the order in which it returns them.
        latents: shape of a batch of one.
        frames: of tokens.
        extra: arguments beside latents, text and timestep.
        text: shape of the text's embeddings; None where there are none.
        timestep: of a step.
        arguments: all arguments of the forward, from latents and step, in place of those.
        streams_of: where a list has other streams than `streams`.
    """

    name: str
    config: dict[str, Any]
    lists: tuple[str, ...]
    streams: tuple[str, ...]
    latents: tuple[int, ...] = (1, 4, 3, 8, 8)
    frames: int = 3
    extra: Callable[[], dict[str, Any]] = lambda: {}
    text: tuple[int, ...] | None = (1, 6, 16)
    timestep: Callable[[int], Tensor] = lambda step: torch.full((1,), 930 - 30 * step)
    arguments: Callable[[Tensor, int], dict[str, Any]] | None = None
    streams_of: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """In evaluation mode, with nothing left at zero."""
        import diffusers

        torch.manual_seed(0)
        model: nn.Module = getattr(diffusers, self.name)(**self.config).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.abs().max() == 0:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        return moved(model)

    def inputs(self, latents: Tensor, step: int) -> dict[str, Any]:
        """Arguments of the forward at step `step`, counted from 1."""
        if self.arguments is not None:
            return self.arguments(latents, step)
        text = {} if self.text is None else {"encoder_hidden_states": noise(*self.text, seed=100)}
        own = {"hidden_states": latents, "timestep": self.timestep(step)}
        return {**own, **text, **self.extra()}

    def call(self, model: nn.Module, latents: Tensor, step: int) -> Tensor:
        """What one forward predicts, in the shape of the latents; zero where it predicts nothing
        (channels that are conditions)."""
        output = model(return_dict=False, **self.inputs(latents, step))[0]
        predicted: Tensor = output[0] if isinstance(output, list) else output
        predicted = predicted.reshape(predicted.shape[-latents.ndim :])
        if predicted.ndim < latents.ndim:
            predicted = predicted[None]
        both = tuple(slice(min(a, b)) for a, b in zip(predicted.shape, latents.shape, strict=True))
        prediction = torch.zeros_like(latents)
        prediction[both] = predicted[both]
        return prediction


def hunyuan() -> dict[str, Any]:
    return {
        "encoder_attention_mask": torch.ones(1, 6),
        "pooled_projections": noise(1, 8, seed=2),
        "guidance": torch.tensor([6000.0]),
    }


def hunyuan15() -> dict[str, Any]:
    return {
        "encoder_hidden_states_2": noise(1, 4, 8, seed=2),
        "encoder_attention_mask": torch.ones(1, 6),
        "encoder_attention_mask_2": torch.ones(1, 4),
        "image_embeds": torch.zeros(1, 3, 12),
    }


def flux() -> dict[str, Any]:
    ids = {"img_ids": noise(16, 3, seed=3), "txt_ids": torch.zeros(6, 3)}
    return {"pooled_projections": noise(1, 32, seed=2), **ids}


def qwen() -> dict[str, Any]:
    mask = torch.ones(1, 6, dtype=torch.long)
    return {"encoder_hidden_states_mask": mask, "img_shapes": [(1, 4, 4)]}


def ltx() -> dict[str, Any]:
    sizes = {"num_frames": 3, "height": 4, "width": 4}
    return {"encoder_attention_mask": torch.ones(1, 6).bool(), **sizes}


BLOCKS = ("transformer_blocks",)
ONE = ("hidden_states",)
TWO = ("hidden_states", "encoder_hidden_states")
VIDEOS: dict[str, TinyClass] = {
    "chronoedit": TinyClass(
        "ChronoEditTransformer3DModel", dict(WAN, rope_temporal_skip_len=8), ("blocks",), ONE
    ),
    "skyreels": TinyClass("SkyReelsV2Transformer3DModel", WAN, ("blocks",), ONE),
    "ltx": TinyClass("LTXVideoTransformer3DModel", LTX, BLOCKS, ONE, latents=(1, 48, 4), extra=ltx),
    "mochi": TinyClass(
        "MochiTransformer3DModel",
        MOCHI,
        BLOCKS,
        TWO,
        extra=lambda: {"encoder_attention_mask": torch.ones(1, 6, dtype=torch.bool)},
    ),
    "cosmos": TinyClass(
        "CosmosTransformer3DModel",
        COSMOS,
        BLOCKS,
        ONE,
        extra=lambda: {"attention_mask": torch.ones(1, 6), "fps": 30},
    ),
    "easyanimate": TinyClass("EasyAnimateTransformer3DModel", EASYANIMATE, BLOCKS, TWO),
    "hunyuan": TinyClass(
        "HunyuanVideoTransformer3DModel",
        dict(HUNYUAN, image_condition_type=None),
        ("transformer_blocks", "single_transformer_blocks"),
        TWO,
        extra=hunyuan,
    ),
    "hunyuan, first frame given": TinyClass(
        "HunyuanVideoTransformer3DModel",
        dict(HUNYUAN, image_condition_type="token_replace"),
        ("transformer_blocks", "single_transformer_blocks"),
        TWO,
        extra=hunyuan,
    ),
    "hunyuan15": TinyClass(
        "HunyuanVideo15Transformer3DModel",
        HUNYUAN15,
        BLOCKS,
        TWO,
        latents=(1, 4, 3, 4, 4),
        extra=hunyuan15,
        timestep=lambda step: torch.full((1,), 930.0 - 30 * step),
    ),
    "sana": TinyClass("SanaVideoTransformer3DModel", SANA, BLOCKS, ONE),
}


IMAGES: dict[str, TinyClass] = {
    "dit": TinyClass(
        "DiTTransformer2DModel",
        DIT,
        BLOCKS,
        ONE,
        (1, 4, 8, 8),
        frames=1,
        text=None,
        extra=lambda: {"class_labels": torch.tensor([1])},
    ),
    "pixart": TinyClass(
        "PixArtTransformer2DModel",
        PIXART,
        BLOCKS,
        ONE,
        (1, 4, 8, 8),
        frames=1,
        text=(1, 6, 8),
        extra=lambda: {"added_cond_kwargs": {"aspect_ratio": None, "resolution": None}},
    ),
    "sana, image": TinyClass(
        "SanaTransformer2DModel",
        SANA_IMAGE,
        BLOCKS,
        ONE,
        (1, 4, 8, 8),
        frames=1,
        text=(1, 6, 8),
    ),
    "flux": TinyClass(
        "FluxTransformer2DModel",
        FLUX,
        ("transformer_blocks", "single_transformer_blocks"),
        TWO[::-1],
        (1, 16, 4),
        frames=1,
        text=(1, 6, 32),
        timestep=lambda step: torch.full((1,), 0.93 - 0.03 * step),
        extra=flux,
    ),
    "qwen": TinyClass(
        "QwenImageTransformer2DModel",
        QWEN,
        BLOCKS,
        TWO[::-1],
        (1, 16, 16),
        frames=1,
        timestep=lambda step: torch.full((1,), 0.93 - 0.03 * step),
        extra=qwen,
    ),
}


def denoise(tiny: TinyClass, model: nn.Module, steps: int) -> list[Tensor]:
    """Latents after every step of `x <- x - 0.05 * model(x)`."""
    latents, trajectory = noise(*tiny.latents), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory
