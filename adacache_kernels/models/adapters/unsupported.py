"""Classes that must not be cached, and why."""

from __future__ import annotations

UNSUPPORTED: dict[str, str] = {
    "AnyFlowFARTransformer3DModel": (
        "it makes a video chunk by chunk, in few steps: its blocks write keys and values that the "
        "next chunks attend to, so that a reused step would ruin what follows"
    ),
    "WanAnimate2Transformer3DModel": (
        "its blocks write keys and values in one pass that the other pass attends to, and the "
        "unconditional pass skips a block"
    ),
    "SanaWMLTX2RefinerTransformer3DModel": (
        "it refines a video in a few steps, and its blocks write keys and values that later calls "
        "attend to"
    ),
}
