"""Adapters of diffusers' `WanTransformer3DModel` (Wan 2.1 and 2.2), VACE and Animate.

One block list with one stream, the video. Its attention is over space and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP, TABLE
from ..adapter import Adapter, BlockList, BlockRun, Residual
from ..adapter_builders import VIDEO, frames_at, split_block_list
from ..layout import Layout

BLOCKS = "blocks"


def _gate(run: BlockRun, index: int) -> Tensor:
    # temb is [B, 6, C], or [B, S, 6, C] with a timestep for each token (Wan 2.2 5B). The block
    # computes the gate in float32.
    table = run.parameter(TABLE)
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


def _residual(taps: tuple[str, ...], value: Callable[[BlockRun], Tensor]) -> Residual:
    # In FastVideo, attn1 has no projections and returns a tuple.
    own = (TABLE, "attn1.to_out")
    return Residual((BLOCKS,), taps, value, arguments=("temb",), parameters=own)


WAN = Adapter(
    lists=(BlockList(BLOCKS, VIDEO, Layout.FRAME_MAJOR),),
    residuals={
        "s-attn": _residual(("attn1",), _attention),
        "ca-mlp": _residual(("attn2", "ffn"), _cross_mlp),
        "block": Residual((BLOCKS,)),
    },
    frames=frames_at(2, "patch_size"),
    guidance_calls=2,
)


def wan_vace(model: nn.Module) -> Adapter:
    """Return the adapter of `WanVACETransformer3DModel`.

    After some blocks the model adds hints from `vace_blocks`, which run in every step.
    """
    layers = model.config.vace_layers  # type: ignore[union-attr]
    return _changed_after(model, layers)  # type: ignore[arg-type]


def wan_animate(model: nn.Module) -> Adapter:
    """Return the adapter of `WanAnimateTransformer3DModel`.

    After every few blocks the video attends to a face.
    """
    every = int(model.config.inject_face_latents_blocks)  # type: ignore[union-attr, arg-type]
    return _changed_after(model, range(0, len(model.blocks), every))  # type: ignore[arg-type]


def _changed_after(model: nn.Module, indices: Iterable[int]) -> Adapter:
    count = len(model.blocks)  # type: ignore[arg-type]
    return replace(WAN, lists=split_block_list(WAN.lists[0], count, indices))
