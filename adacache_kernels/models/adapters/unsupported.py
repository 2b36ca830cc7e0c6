"""Model classes that must not be cached, with the reasons."""

from __future__ import annotations

UNSUPPORTED: dict[str, str] = {
    "AnyFlowFARTransformer3DModel": (
        "it generates a video chunk by chunk, and its blocks write keys and values that later "
        "chunks attend to, so a reused step would damage those chunks"
    ),
    "WanAnimate2Transformer3DModel": (
        "in one pass its blocks write keys and values that the other pass attends to, and the "
        "unconditional pass skips a block"
    ),
    "SanaWMLTX2RefinerTransformer3DModel": (
        "it refines a video in a few steps, and its blocks write keys and values that later calls "
        "attend to"
    ),
}
"""The reason by class name, as the end of "<class> must not be cached: "."""
