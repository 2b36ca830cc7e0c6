"""Adapter of diffusers' `CogVideoXTransformer3DModel`.

One block list with two streams, video and text, which share one attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..adapter import Adapter, BlockList, BlockRun, Residual
from ..adapter_builders import HIDDEN_STATES, VIDEO_AND_TEXT, video_shape
from ..frames import Frames
from ..layout import Layout

BLOCKS = "transformer_blocks"


def _attention(run: BlockRun) -> Tensor:
    # norm1 returns (video, text, gate, text gate); attn1 returns (video, text).
    gate, attention = run.tap("norm1")[2], run.tap("attn1")[0]
    residual: Tensor = gate * attention
    return residual


def _mlp(run: BlockRun) -> Tensor:
    # ff runs over [text; video]. The block has no cross attention, so ca-mlp is the MLP alone.
    text_length = run.arguments["encoder_hidden_states"].shape[1]
    residual: Tensor = run.tap("norm2")[2] * run.tap("ff")[:, text_length:]
    return residual


def _count_frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The model rounds the number of patches up.
    batch, frames = video_shape(arguments, frame_axis=1)
    patch_frames = int(model.config.patch_size_t or 1)  # type: ignore[union-attr, arg-type]
    return batch, -(-frames // patch_frames)


COGVIDEOX = Adapter(
    lists=(BlockList(BLOCKS, VIDEO_AND_TEXT, Layout.FRAME_MAJOR),),
    residuals={
        "s-attn": Residual((BLOCKS,), ("norm1", "attn1"), _attention),
        "ca-mlp": Residual((BLOCKS,), ("norm2", "ff"), _mlp),
        "block": Residual((BLOCKS,)),
    },
    frames=Frames(_count_frames, (HIDDEN_STATES,), ("config.patch_size_t",)),
)
