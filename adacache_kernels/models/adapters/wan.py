"""diffusers `WanTransformer3DModel` (Wan 2.1 and 2.2): one list, full attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP
from ..adapter import Adapter, BlockList, BlockRun, Layout, Residual, Stream, video_shape
from ..adapter_builders import split_block_list

BLOCKS = "blocks"


def _gate(run: BlockRun, index: int) -> Tensor:
    # temb is [B, 6, C], or [B, N, 6, C] with one timestep a token (Wan 2.2 5B); in float32.
    table = run.parameter("scale_shift_table")
    temb: Tensor = run.arguments["temb"].float()
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


def wan_vace(model: nn.Module) -> Adapter:
    """Hints from `vace_blocks`, which run in every step, are added after some blocks."""
    layers = model.config.vace_layers  # type: ignore[union-attr]
    return _changed_after(model, layers)  # type: ignore[arg-type]


def wan_animate(model: nn.Module) -> Adapter:
    """A face is attended to by the video after every few blocks."""
    every = int(model.config.inject_face_latents_blocks)  # type: ignore[union-attr, arg-type]
    return _changed_after(model, range(0, len(model.blocks), every))  # type: ignore[arg-type]


def _changed_after(model: nn.Module, layers: Iterable[int]) -> Adapter:
    count = len(model.blocks)  # type: ignore[arg-type]
    return replace(WAN, lists=split_block_list(WAN.lists[0], count, layers))
