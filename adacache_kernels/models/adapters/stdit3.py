"""Adapter of STDiT3 from Open-Sora 1.2 and 1.3, AdaCache's repository and VideoSys.

Spatial and temporal blocks are interleaved. Each block changes the layout inside itself, so between
blocks the video is always `[B, F*S, C]`. The blocks of AdaCache's repository also take a dictionary
and return it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP, TABLE
from ..adapter import Adapter, BlockList, BlockRun, Residual, Stream
from ..frames import Frames
from ..layout import Layout
from ..other_libraries.forward_wrappers import own_forward

SPATIAL, TEMPORAL = "spatial_blocks", "temporal_blocks"


def _gate(run: BlockRun, index: int) -> Tensor:
    """Return the gate as `[B, 1 or F, 1, C]`.

    Frames that are False in `x_mask`, `[B, F]`, get the gate of timestep 0.
    """
    table, mask = run.parameter(TABLE), run.arguments.get("x_mask")

    def gate(time: str) -> Tensor:
        modulation: Tensor = table[None] + run.arguments[time].reshape(run.x_in.shape[0], 6, -1)
        return modulation[:, index, None, None]

    if mask is None:
        return gate("t")
    return torch.where(mask[:, :, None, None], gate("t"), gate("t0"))


def _gated(run: BlockRun, x: Tensor, index: int) -> Tensor:
    """Return `gate * x` as `[B, F*S, C]`; the elements of `x` lie in the order `[B, F, S, C]`."""
    batch, _, channels = run.x_in.shape
    frames, tokens = run.arguments["T"], run.arguments["S"]
    gated = _gate(run, index) * x.reshape(batch, frames, tokens, channels)
    return gated.reshape(run.x_in.shape)


def _spatial_attention(run: BlockRun) -> Tensor:
    return _gated(run, run.tap("attn"), GATE_ATTENTION)


def _temporal_attention(run: BlockRun) -> Tensor:
    # The attention returns [B*S, F, C], in Open-Sora 1.3 [B, H, W, F, C].
    batch, _, channels = run.x_in.shape
    frames, tokens = run.arguments["T"], run.arguments["S"]
    attention = run.tap("attn").view(batch, tokens, frames, channels).transpose(1, 2)
    return _gated(run, attention, GATE_ATTENTION)


def _cross_mlp(run: BlockRun) -> Tensor:
    mlp: Tensor = _gated(run, run.tap("mlp"), GATE_MLP)
    cross: Tensor = run.tap("cross_attn")
    return cross + mlp


def _count_frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The model pads a video whose frames do not fill the last patch.
    batch, _, frames = arguments["x"].shape[:3]
    return batch, -(-frames // int(model.patch_size[0]))  # type: ignore[index]


def _residual(
    lists: tuple[str, ...], taps: tuple[str, ...], value: Callable[[BlockRun], Tensor]
) -> Residual:
    return Residual(lists, taps, value, arguments=("t", "t0", "T", "S"), parameters=(TABLE,))


def _block_list(attribute: str, has_dictionary: bool) -> BlockList:
    return BlockList(
        attribute,
        (Stream("x", 0) if has_dictionary else Stream("x"),),
        Layout.FRAME_MAJOR,
        interleaved_with_next=attribute == SPATIAL,
        passed=(Stream("ada_dict", 1),) if has_dictionary else (),
        # VideoSys indexes the lists up to its depth. Its blocks look like Open-Sora's.
        by_index=not has_dictionary,
    )


def stdit3(model: nn.Module) -> Adapter:
    """Return the adapter of an STDiT3; its blocks may take the dictionary `ada_dict`.

    Raises:
        ValueError: the model was built with AdaCache's own caching (`do_cache=True`).
    """
    block = getattr(model, SPATIAL)[0]
    if getattr(block, "do_cache", False):
        raise ValueError(
            f"this {type(model).__name__} caches by itself (do_cache=True), and its blocks would "
            "count only the calls that reach them; build it with do_cache=False"
        )
    has_dictionary = "ada_dict" in inspect.signature(own_forward(block)).parameters
    return Adapter(
        lists=(_block_list(SPATIAL, has_dictionary), _block_list(TEMPORAL, has_dictionary)),
        residuals={
            "t-attn": _residual((TEMPORAL,), ("attn",), _temporal_attention),
            "s-attn": _residual((SPATIAL,), ("attn",), _spatial_attention),
            "ca-mlp": _residual((SPATIAL, TEMPORAL), ("cross_attn", "mlp"), _cross_mlp),
            "block": Residual((SPATIAL, TEMPORAL)),
        },
        frames=Frames(_count_frames, ("x",), ("patch_size",)),
    )
