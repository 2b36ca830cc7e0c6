"""Adapters of Latte: diffusers' `LatteTransformer3DModel` and the models of its repository.

Spatial and temporal blocks are interleaved, and each kind has its own layout. The class-conditional
model has both kinds in one `nn.ModuleList`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP, gated_attention, gated_cross_mlp
from ..adapter import Adapter, BlockList, BlockRun, Residual, Stream
from ..adapter_builders import VIDEO, frames_at, has_images_next_to_video
from ..frames import Frames
from ..layout import Layout

SPATIAL, TEMPORAL = "transformer_blocks", "temporal_transformer_blocks"

# Between two blocks the model changes the layout. Before the first temporal block it also adds a
# positional embedding. Both are affine, so one residual, added after the embedding, is exact.
LATTE = Adapter(
    lists=(
        BlockList(SPATIAL, VIDEO, Layout.FRAMES_IN_BATCH, interleaved_with_next=True),
        BlockList(TEMPORAL, VIDEO, Layout.TOKENS_IN_BATCH),
    ),
    residuals={
        "t-attn": gated_attention((TEMPORAL,), "timestep"),
        "s-attn": gated_attention((SPATIAL,), "timestep"),
        "ca-mlp": gated_cross_mlp((SPATIAL, TEMPORAL), "timestep"),
        "block": Residual((SPATIAL, TEMPORAL)),
    },
    frames=frames_at(2),
)
LATTE_T2V = replace(LATTE, why_not_cached=has_images_next_to_video)


def _gated(run: BlockRun, tap: str, index: int) -> Tensor:
    """Return the output of a submodule times its gate, `[B, S, C]`."""
    gate: Tensor = run.tap("adaLN_modulation").chunk(6, dim=1)[index].unsqueeze(1)
    value: Tensor = gate * run.tap(tap)
    return value


def _attention(run: BlockRun) -> Tensor:
    return _gated(run, "attn", GATE_ATTENTION)


def _mlp(run: BlockRun) -> Tensor:
    return _gated(run, "mlp", GATE_MLP)


def _count_frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    batch, frames = arguments["x"].shape[:2]
    return batch, frames


HIDDEN = (Stream("x"),)
# Blocks with even indices are spatial, blocks with odd indices temporal.
EVEN = BlockList("blocks", HIDDEN, Layout.FRAMES_IN_BATCH, interleaved_with_next=True, step=2)
ODD = BlockList("blocks", HIDDEN, Layout.TOKENS_IN_BATCH, start=1, step=2)
LATTE_OF_CLASSES = Adapter(
    lists=(EVEN, ODD),
    residuals={
        "t-attn": Residual((ODD.name,), ("adaLN_modulation", "attn"), _attention),
        "s-attn": Residual((EVEN.name,), ("adaLN_modulation", "attn"), _attention),
        "ca-mlp": Residual((EVEN.name, ODD.name), ("adaLN_modulation", "mlp"), _mlp),
        "block": Residual((EVEN.name, ODD.name)),
    },
    frames=Frames(_count_frames, ("x",)),
    why_not_cached=has_images_next_to_video,
)
