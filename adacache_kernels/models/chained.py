"""diffusers classes whose blocks follow each other directly: nothing but data about them.

Measured is what the whole metric block adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .base import Adapter, BlockList, Layout, Residual, Stream, video_shape

Frames = Callable[[nn.Module, Mapping[str, Any]], tuple[int, int]]
VIDEO = (Stream("hidden_states"),)
TEXT_AND_IMAGE = (Stream("hidden_states", 1), Stream("encoder_hidden_states", 0))
"""Returned in this order; the image is the stream that is measured."""
VIDEO_AND_TEXT = (Stream("hidden_states", 0), Stream("encoder_hidden_states", 1))


def chained(
    *attributes: str, streams: tuple[Stream, ...], frames: Frames, guidance_calls: int = 1
) -> Adapter:
    """Lists of blocks, one after the other, with the same streams."""
    return Adapter(
        lists=tuple(BlockList(name, streams, Layout.FRAME_MAJOR) for name in attributes),
        residuals={"block": Residual(attributes)},
        frames=frames,
        guidance_calls=guidance_calls,
    )


def frames_at(axis: int, patch: str | None = None) -> Frames:
    """Latent frames on that axis of `hidden_states`; `config.<patch>` of them make a token."""

    def frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        batch, latent_frames = video_shape(arguments, frame_axis=axis)
        size = 1 if patch is None else getattr(model.config, patch)
        return batch, latent_frames // int(size[0] if isinstance(size, list | tuple) else size)

    return frames


def _frames_named(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The tokens come packed, [B, F*H*W, C].
    hidden_states = arguments["hidden_states"]
    assert isinstance(hidden_states, Tensor)
    return hidden_states.shape[0], int(arguments["num_frames"])


def _image(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    hidden_states = arguments["hidden_states"]
    assert isinstance(hidden_states, Tensor)
    return hidden_states.shape[0], 1


CHAINED: dict[str, Adapter] = {
    "SkyReelsV2Transformer3DModel": chained(
        "blocks", streams=VIDEO, frames=frames_at(2, "patch_size"), guidance_calls=2
    ),
    "LTXVideoTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=_frames_named
    ),
    "MochiTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO_AND_TEXT, frames=frames_at(2)
    ),
    "CosmosTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=frames_at(2, "patch_size"), guidance_calls=2
    ),
    "EasyAnimateTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO_AND_TEXT, frames=frames_at(2)
    ),
    "HunyuanVideoTransformer3DModel": chained(
        "transformer_blocks",
        "single_transformer_blocks",
        streams=VIDEO_AND_TEXT,
        frames=frames_at(2, "patch_size_t"),
        guidance_calls=2,
    ),
    "HunyuanVideo15Transformer3DModel": chained(
        "transformer_blocks",
        streams=VIDEO_AND_TEXT,
        frames=frames_at(2, "patch_size_t"),
        guidance_calls=2,
    ),
    "DiTTransformer2DModel": chained("transformer_blocks", streams=VIDEO, frames=_image),
    "PixArtTransformer2DModel": chained("transformer_blocks", streams=VIDEO, frames=_image),
    "SanaTransformer2DModel": chained("transformer_blocks", streams=VIDEO, frames=_image),
    "FluxTransformer2DModel": chained(
        "transformer_blocks",
        "single_transformer_blocks",
        streams=TEXT_AND_IMAGE,
        frames=_image,
        guidance_calls=2,
    ),
    "QwenImageTransformer2DModel": chained(
        "transformer_blocks", streams=TEXT_AND_IMAGE, frames=_image, guidance_calls=2
    ),
    "SanaVideoTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=frames_at(2, "patch_size")
    ),
}
