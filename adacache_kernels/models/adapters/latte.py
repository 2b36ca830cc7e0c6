"""diffusers `LatteTransformer3DModel`: spatial and temporal blocks in turn, two layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import adaln_single_attention, adaln_single_cross_mlp
from ..adapter import Adapter, BlockList, BlockRun, Layout, Residual, Stream, video_shape

SPATIAL, TEMPORAL = "transformer_blocks", "temporal_transformer_blocks"
HIDDEN = (Stream("hidden_states"),)


def _attention(run: BlockRun) -> Tensor:
    return adaln_single_attention(run, "timestep")


def _cross_mlp(run: BlockRun) -> Tensor:
    return adaln_single_cross_mlp(run, "timestep")


def _frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    return video_shape(arguments, frame_axis=2)


# The model changes layout between any two blocks and adds a positional embedding before the first
# temporal one. Both are affine, so one residual, added after the embedding, is exact.
LATTE = Adapter(
    lists=(
        BlockList(SPATIAL, HIDDEN, Layout.FRAMES_IN_BATCH, interleaved_with_next=True),
        BlockList(TEMPORAL, HIDDEN, Layout.TOKENS_IN_BATCH),
    ),
    residuals={
        "t-attn": Residual((TEMPORAL,), ("attn1",), _attention),
        "s-attn": Residual((SPATIAL,), ("attn1",), _attention),
        "ca-mlp": Residual((SPATIAL, TEMPORAL), ("attn2", "ff"), _cross_mlp),
        "block": Residual((SPATIAL, TEMPORAL)),
    },
    frames=_frames,
)
