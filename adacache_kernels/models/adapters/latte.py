"""Adapter of diffusers' `LatteTransformer3DModel`.

Two interleaved block lists, spatial and temporal, each with its own layout.
"""

from __future__ import annotations

from ..adaln_gates import gated_attention, gated_cross_mlp
from ..adapter import Adapter, BlockList, Residual
from ..adapter_builders import VIDEO, frames_at
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
        "t-attn": Residual((TEMPORAL,), ("attn1",), gated_attention("timestep")),
        "s-attn": Residual((SPATIAL,), ("attn1",), gated_attention("timestep")),
        "ca-mlp": Residual((SPATIAL, TEMPORAL), ("attn2", "ff"), gated_cross_mlp("timestep")),
        "block": Residual((SPATIAL, TEMPORAL)),
    },
    frames=frames_at(2),
)
