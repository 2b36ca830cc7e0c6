"""Adapter of MMDiT from Open-Sora 2.0.

Two block lists: the first with two streams, video and text, the second with both in one stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..adapter import Adapter, BlockList, Residual, Stream
from ..frames import Frames
from ..layout import Layout


def _count_packed(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # The tokens are packed, [B, F*S, C].
    return arguments["img"].shape[0], 1


OPEN_SORA_2 = Adapter(
    lists=(
        BlockList("double_blocks", (Stream("img", 0), Stream("txt", 1)), Layout.FRAME_MAJOR),
        BlockList("single_blocks", (Stream("x"),), Layout.FRAME_MAJOR, joined=("txt", "img")),
    ),
    residuals={"block": Residual(("double_blocks",))},
    frames=Frames(_count_packed, ("img",), unknown="its forward takes tokens, not a video"),
)
