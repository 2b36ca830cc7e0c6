"""Adapters of OpenSoraT2V from Open-Sora-Plan 1.2 and 1.3.

One block list with one stream, the video. Its attention is over space and time. Open-Sora-Plan 1.1
has `LatteT2V`, which is in latte.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, TABLE, gated_attention
from ..adapter import Adapter, BlockList, BlockRun, Residual
from ..adapter_builders import HIDDEN_STATES, VIDEO, has_images_next_to_video, video_shape
from ..frames import Frames
from ..layout import Layout

BLOCKS = "transformer_blocks"


def _attention_tokens_first(run: BlockRun) -> Tensor:
    # The block takes the timestep's embedding as [6, B, C].
    table = run.parameter(TABLE)
    modulation: Tensor = table[:, None] + run.arguments["timestep"]
    attention: Tensor = run.tap("attn1")
    return modulation[GATE_ATTENTION] * attention


def _count_frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # An odd number of frames leaves one over, which has a patch of its own.
    batch, frames = video_shape(arguments, frame_axis=2)
    frames -= int(arguments.get("use_image_num") or 0)
    size = int(model.config.patch_size_t)  # type: ignore[union-attr, arg-type]
    return batch, (frames - 1) // size + 1 if frames % 2 else frames // size


def _adapter(layout: Layout, attention: Residual) -> Adapter:
    return Adapter(
        lists=(BlockList(BLOCKS, VIDEO, layout),),
        residuals={
            "s-attn": attention,
            "block": Residual((BLOCKS,)),
        },
        frames=Frames(_count_frames, (HIDDEN_STATES,), ("config.patch_size_t",)),
        why_not_cached=has_images_next_to_video,
    )


TOKENS_FIRST_ATTENTION = Residual(
    (BLOCKS,), ("attn1",), _attention_tokens_first, arguments=("timestep",), parameters=(TABLE,)
)
OPEN_SORA_PLAN_1_2 = _adapter(Layout.FRAME_MAJOR, gated_attention((BLOCKS,), "timestep"))
OPEN_SORA_PLAN_1_3 = _adapter(Layout.TOKENS_FIRST, TOKENS_FIRST_ATTENTION)
