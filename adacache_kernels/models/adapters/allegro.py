"""diffusers `AllegroTransformer3DModel`: one list, full attention over space and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import adaln_single_attention, adaln_single_cross_mlp
from ..adapter import Adapter, BlockList, BlockRun, Layout, Residual, Stream, video_shape

BLOCKS = "transformer_blocks"


def _attention(run: BlockRun) -> Tensor:
    return adaln_single_attention(run, "temb")


def _cross_mlp(run: BlockRun) -> Tensor:
    return adaln_single_cross_mlp(run, "temb")


def _frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    batch, frames = video_shape(arguments, frame_axis=2)
    return batch, frames // int(model.config.patch_size_t)  # type: ignore[union-attr, arg-type]


ALLEGRO = Adapter(
    lists=(BlockList(BLOCKS, (Stream("hidden_states"),), Layout.FRAME_MAJOR),),
    residuals={
        "s-attn": Residual((BLOCKS,), ("attn1",), _attention),
        "ca-mlp": Residual((BLOCKS,), ("attn2", "ff"), _cross_mlp),
        "block": Residual((BLOCKS,)),
    },
    frames=_frames,
)
