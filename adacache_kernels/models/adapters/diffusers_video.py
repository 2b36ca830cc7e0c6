"""Adapters of diffusers' video transformers, by class name.

Their blocks follow each other directly. The residual that can be measured is that of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..adapter import Adapter, BlockList, Residual, Stream
from ..adapter_builders import (
    MIXED_TOKENS,
    VIDEO,
    VIDEO_AND_TEXT,
    chained,
    frames_at,
    frames_from_num_frames,
    no_frames,
    split_block_list,
)
from ..frames import Frames
from ..layout import Layout

TWO_LISTS = ("transformer_blocks", "single_transformer_blocks")


def _count_sequence(_model: nn.Module, _arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The sequence has no batch.
    return 1, 1


def consisid(model: nn.Module) -> Adapter:
    """Return the adapter of `ConsisIDTransformer3DModel`.

    If the model has face layers, the video attends to a face after every few blocks.
    """
    name, config = "transformer_blocks", model.config
    adapter = chained(name, streams=VIDEO_AND_TEXT, frames=frames_at(1))
    if not config.is_train_face:  # type: ignore[union-attr]
        return adapter
    count, interval = len(getattr(model, name)), config.cross_attn_interval  # type: ignore[union-attr]
    changed_after = range(0, count, int(interval))  # type: ignore[arg-type]
    return replace(adapter, lists=split_block_list(adapter.lists[0], count, changed_after))


def motif(model: nn.Module) -> Adapter:
    """Return the adapter of `MotifVideoTransformer3DModel`.

    The last single blocks, its decoder, start again from the streams that entered the first block
    and attend to the outputs of the other blocks. Only the decoder's residual reaches the output.
    """
    adapter = chained(
        *TWO_LISTS, streams=VIDEO_AND_TEXT, frames=frames_at(2, "patch_size_t"), guidance_calls=2
    )
    decoder_length = int(model.config.num_decoder_layers)  # type: ignore[union-attr, arg-type]
    if decoder_length == 0:
        return adapter
    first, second = (replace(blocks, has_residual=False) for blocks in adapter.lists)
    start = len(getattr(model, second.attribute)) - decoder_length
    video, text = VIDEO_AND_TEXT
    decoder = BlockList(second.attribute, (video,), Layout.FRAME_MAJOR, start=start, passed=(text,))
    return replace(adapter, lists=(first, replace(second, stop=start), decoder))


VIDEOS: dict[str, Adapter | Callable[[nn.Module], Adapter]] = {
    "SkyReelsV2Transformer3DModel": chained(
        "blocks", streams=VIDEO, frames=frames_at(2, "patch_size"), guidance_calls=2
    ),
    "LTXVideoTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=frames_from_num_frames
    ),
    "LTX2VideoTransformer3DModel": chained(
        "transformer_blocks",
        streams=(Stream("hidden_states", 0), Stream("audio_hidden_states", 1)),
        frames=frames_from_num_frames,
    ),
    "MochiTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO_AND_TEXT, frames=frames_at(2)
    ),
    "CosmosTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=frames_at(2, "patch_size"), guidance_calls=2
    ),
    # Both streams have no batch. Blocks return (text, video).
    "Cosmos3OmniTransformer": Adapter(
        lists=(
            BlockList("layers", (Stream("gen_seq", 1), Stream("und_seq", 0)), Layout.UNBATCHED),
        ),
        residuals={"block": Residual(("layers",))},
        frames=Frames(_count_sequence, unknown=MIXED_TOKENS),
        guidance_calls=2,
    ),
    "EasyAnimateTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO_AND_TEXT, frames=frames_at(2)
    ),
    "ConsisIDTransformer3DModel": consisid,
    "HunyuanVideoTransformer3DModel": chained(
        *TWO_LISTS, streams=VIDEO_AND_TEXT, frames=frames_at(2, "patch_size_t"), guidance_calls=2
    ),
    "HunyuanVideo15Transformer3DModel": chained(
        "transformer_blocks",
        streams=VIDEO_AND_TEXT,
        frames=frames_at(2, "patch_size_t"),
        guidance_calls=2,
    ),
    # Tokens of earlier frames, in coarser patches, precede those of the video.
    "HunyuanVideoFramepackTransformer3DModel": chained(
        *TWO_LISTS, streams=VIDEO_AND_TEXT, frames=no_frames, guidance_calls=2
    ),
    "HeliosTransformer3DModel": chained(
        "blocks", streams=VIDEO, frames=no_frames, guidance_calls=2
    ),
    "AnyFlowTransformer3DModel": chained(
        "blocks", streams=VIDEO, frames=frames_at(1, "patch_size")
    ),
    "Kandinsky5Transformer3DModel": chained(
        "visual_transformer_blocks",
        streams=(Stream("visual_embed"),),
        frames=frames_at(1, "patch_size"),
        guidance_calls=2,
    ),
    "Kandinsky6Transformer3DModel": chained(
        "visual_transformer_blocks",
        streams=(Stream("vis", 0), Stream("aud", 1)),
        frames=frames_at(1, "patch_size"),
        guidance_calls=2,
    ),
    "Kandinsky6SRTransformer3DModel": chained(
        "visual_transformer_blocks",
        streams=VIDEO,
        frames=frames_at(1, "patch_size"),
        guidance_calls=2,
    ),
    # Text, audio and video are rows of one sequence.
    "MiniMaxH3Transformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=no_frames, guidance_calls=2
    ),
    "MotifVideoTransformer3DModel": motif,
    "SanaVideoTransformer3DModel": chained(
        "transformer_blocks", streams=VIDEO, frames=frames_at(2, "patch_size")
    ),
    "SanaWMTransformer3DModel": chained(
        "blocks", streams=(Stream("x"),), frames=frames_at(2, "patch_size")
    ),
}
