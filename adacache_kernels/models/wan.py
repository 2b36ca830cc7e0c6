"""diffusers `WanTransformer3DModel` (Wan 2.1 and 2.2): one list, full attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .base import Adapter, BlockList, BlockRun, Layout, Residual, Stream, video_shape
from .modulation import GATE_ATTENTION, GATE_MLP

BLOCKS = "blocks"


def _gate(run: BlockRun, index: int) -> Tensor:
    # temb is [B, 6, C], or [B, N, 6, C] with one timestep a token (Wan 2.2 5B); in float32.
    table = run.block.scale_shift_table
    temb: Tensor = run.arguments["temb"].float()
    assert isinstance(table, Tensor)
    gate: Tensor = (table + temb).select(-2, index)
    return gate if temb.ndim == 4 else gate.unsqueeze(1)


def _attention(run: BlockRun) -> Tensor:
    attention: Tensor = run.tap("attn1")
    return attention * _gate(run, GATE_ATTENTION)


def _cross_mlp(run: BlockRun) -> Tensor:
    mlp: Tensor = run.tap("ffn").float() * _gate(run, GATE_MLP)
    cross: Tensor = run.tap("attn2")
    return mlp + cross


def _frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    batch, frames = video_shape(arguments, frame_axis=2)
    return batch, frames // int(model.config.patch_size[0])  # type: ignore[union-attr, index]


WAN = Adapter(
    lists=(BlockList(BLOCKS, (Stream("hidden_states"),), Layout.FRAME_MAJOR),),
    residuals={
        "s-attn": Residual((BLOCKS,), ("attn1",), _attention),
        "ca-mlp": Residual((BLOCKS,), ("attn2", "ffn"), _cross_mlp),
        "block": Residual((BLOCKS,)),
    },
    frames=_frames,
    guidance_calls=2,
)
