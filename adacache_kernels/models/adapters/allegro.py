"""Adapter of diffusers' `AllegroTransformer3DModel`.

One block list with one stream, the video. Its attention is over space and time.
"""

from __future__ import annotations

from ..adaln_gates import gated_attention, gated_cross_mlp
from ..adapter import Adapter, BlockList, Residual
from ..adapter_builders import VIDEO, frames_at
from ..layout import Layout

BLOCKS = "transformer_blocks"

ALLEGRO = Adapter(
    lists=(BlockList(BLOCKS, VIDEO, Layout.FRAME_MAJOR),),
    residuals={
        "s-attn": gated_attention((BLOCKS,), "temb"),
        "ca-mlp": gated_cross_mlp((BLOCKS,), "temb"),
        "block": Residual((BLOCKS,)),
    },
    frames=frames_at(2, "patch_size_t"),
)
