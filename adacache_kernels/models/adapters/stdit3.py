"""STDiT3 of Open-Sora 1.2 and 1.3, as its authors, AdaCache's authors and VideoSys have it.

Spatial and temporal blocks in turn. Each changes layout inside itself: between blocks the video is
always [B, F*S, C]. With AdaCache's own code, blocks are handed a dictionary and hand it on.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP
from ..adapter import Adapter, BlockList, BlockRun, Layout, Residual, Stream
from ..other_libraries.forward_wrappers import own_forward

SPATIAL, TEMPORAL = "spatial_blocks", "temporal_blocks"


def _gate(run: BlockRun, index: int) -> Tensor:
    """[B, 1 or F, 1, C]: frames that `x_mask` leaves out are gated as at timestep 0."""
    table, mask = run.parameter("scale_shift_table"), run.arguments.get("x_mask")

    def gate(time: str) -> Tensor:
        modulation: Tensor = table[None] + run.arguments[time].reshape(run.x_in.shape[0], 6, -1)
        return modulation[:, index, None, None]

    if mask is None:
        return gate("t")
    return torch.where(mask[:, :, None, None], gate("t"), gate("t0"))


def _gated(run: BlockRun, x: Tensor, index: int) -> Tensor:
    """gate * x for x of B*F*S*C elements in that order."""
    batch, _, channels = run.x_in.shape
    frames, tokens = run.arguments["T"], run.arguments["S"]
    gated = _gate(run, index) * x.reshape(batch, frames, tokens, channels)
    return gated.reshape(run.x_in.shape)


def _spatial(run: BlockRun) -> Tensor:
    return _gated(run, run.tap("attn"), GATE_ATTENTION)


def _temporal(run: BlockRun) -> Tensor:
    # The attention ran over [B*S, F, C], or in 1.3 over [B, H, W, F, C].
    batch, _, channels = run.x_in.shape
    frames, tokens = run.arguments["T"], run.arguments["S"]
    attention = run.tap("attn").view(batch, tokens, frames, channels).transpose(1, 2)
    return _gated(run, attention, GATE_ATTENTION)


def _cross_mlp(run: BlockRun) -> Tensor:
    mlp: Tensor = _gated(run, run.tap("mlp"), GATE_MLP)
    cross: Tensor = run.tap("cross_attn")
    return cross + mlp


def _frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The model pads a video whose frames do not make whole patches.
    batch, _, frames = arguments["x"].shape[:3]
    return batch, -(-frames // int(model.patch_size[0]))  # type: ignore[index]


def stdit3(model: nn.Module) -> Adapter:
    """With the dictionary where the blocks take one.

    Raises:
        ValueError: AdaCache's own code is at work in the blocks.
    """
    block = getattr(model, SPATIAL)[0]
    if getattr(block, "do_cache", False):
        raise ValueError(
            f"this {type(model).__name__} caches by itself (do_cache=True), and its blocks would "
            "count only the calls that reach them; build it with do_cache=False"
        )
    has_dictionary = "ada_dict" in inspect.signature(own_forward(block)).parameters
    video = Stream("x", 0) if has_dictionary else Stream("x")
    passed = (Stream("ada_dict", 1),) if has_dictionary else ()
    return Adapter(
        lists=tuple(
            BlockList(
                name,
                (video,),
                Layout.FRAME_MAJOR,
                interleaved_with_next=name == SPATIAL,
                passed=passed,
                # VideoSys counts up to its depth; its blocks are those of Open-Sora.
                by_index=not has_dictionary,
            )
            for name in (SPATIAL, TEMPORAL)
        ),
        residuals={
            "t-attn": Residual((TEMPORAL,), ("attn",), _temporal),
            "s-attn": Residual((SPATIAL,), ("attn",), _spatial),
            "ca-mlp": Residual((SPATIAL, TEMPORAL), ("cross_attn", "mlp"), _cross_mlp),
            "block": Residual((SPATIAL, TEMPORAL)),
        },
        frames=_frames,
    )
