"""Adapters of diffusers' image transformers, by class name.

Their blocks follow each other directly. The residual that can be measured is that of the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..adapter import Adapter, BlockList, Residual, Stream
from ..adapter_builders import (
    IMAGES_ONLY,
    TEXT_AND_IMAGE,
    VIDEO,
    VIDEO_AND_TEXT,
    chained,
    one_image,
    writes_keys_and_values,
)
from ..frames import Frames
from ..layout import Layout

IMAGE = VIDEO
IMAGE_AND_TEXT = VIDEO_AND_TEXT


def _ends_are_skipped(model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
    count = len(model.transformer_blocks)  # type: ignore[arg-type]
    if {0, count - 1}.isdisjoint(arguments.get("skip_layers") or ()):
        return None
    return "skip_layers has the first or the last block, so such calls are computed"


def _count_list(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The argument is a list of images.
    return len(arguments["x"]), 1


def _joined(first: BlockList, attribute: str, joined: tuple[str, ...]) -> Adapter:
    """Return the adapter of a list with two streams, then a list with both in one stream.

    Args:
        first: the list with two streams.
        attribute: name of the second list.
        joined: streams of the first list, in the order in which they are concatenated.
    """
    second = BlockList(
        attribute,
        IMAGE,
        Layout.FRAME_MAJOR,
        joined=joined,
        replaces_tokens=first.replaces_tokens,
    )
    return Adapter(
        lists=(first, second), residuals={"block": Residual((first.attribute,))}, frames=one_image
    )


IMAGES: dict[str, Adapter] = {
    "DiTTransformer2DModel": chained("transformer_blocks", streams=IMAGE, frames=one_image),
    "PixArtTransformer2DModel": chained("transformer_blocks", streams=IMAGE, frames=one_image),
    "SanaTransformer2DModel": chained("transformer_blocks", streams=IMAGE, frames=one_image),
    # The last block returns no text.
    "SD3Transformer2DModel": chained(
        "transformer_blocks",
        streams=(Stream("hidden_states", 1),),
        frames=one_image,
        why_not_cached=_ends_are_skipped,
    ),
    "FluxTransformer2DModel": chained(
        "transformer_blocks",
        "single_transformer_blocks",
        streams=TEXT_AND_IMAGE,
        frames=one_image,
        guidance_calls=2,
    ),
    "Flux2Transformer2DModel": replace(
        _joined(
            BlockList("transformer_blocks", TEXT_AND_IMAGE, Layout.FRAME_MAJOR),
            "single_transformer_blocks",
            ("encoder_hidden_states", "hidden_states"),
        ),
        why_not_cached=writes_keys_and_values("kv_cache", "kv_cache_mode"),
    ),
    # Its first blocks, one list for each modality, run in every step.
    "Flux3Transformer2DModel": chained(
        "single_transformer_blocks", streams=TEXT_AND_IMAGE, frames=one_image
    ),
    "QwenImageTransformer2DModel": chained(
        "transformer_blocks", streams=TEXT_AND_IMAGE, frames=one_image, guidance_calls=2
    ),
    "Lumina2Transformer2DModel": chained(
        "layers", streams=IMAGE, frames=one_image, guidance_calls=2
    ),
    "ZImageTransformer2DModel": chained(
        "layers", streams=(Stream("x"),), frames=Frames(_count_list, ("x",), unknown=IMAGES_ONLY)
    ),
    # Later blocks also take the outputs of earlier ones. Only blocks read those outputs.
    "HunyuanDiT2DModel": chained("blocks", streams=IMAGE, frames=one_image),
    # The model appends another text to the stream before each block and removes it afterwards.
    # Each block gets other embeddings of the text, as the last tokens of its stream.
    "HiDreamImageTransformer2DModel": _joined(
        BlockList("double_stream_blocks", IMAGE_AND_TEXT, Layout.FRAME_MAJOR, replaces_tokens=True),
        "single_stream_blocks",
        ("hidden_states", "encoder_hidden_states"),
    ),
}
