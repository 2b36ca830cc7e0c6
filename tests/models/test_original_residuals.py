"""The residual and the frames that are measured in the original repositories' models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.original_parts import FRAMES, TOKENS
from tests.support.tiny_models.originals import ORIGINALS

STEPS, BATCH = 5, 2
Frames = Callable[[Tensor], Tensor]
"""From a stream to `[B, F, S, C]`."""


def frames_outside(x: Tensor) -> Tensor:
    """Return `[B, F, S, C]` from `[B, F*S, C]` or `[B*F, S, C]`."""
    return x.reshape(BATCH, FRAMES, TOKENS, -1)


def tokens_outside(x: Tensor) -> Tensor:
    """Return `[B, F, S, C]` from `[B*S, F, C]`."""
    return x.reshape(BATCH, TOKENS, FRAMES, -1).transpose(1, 2)


def tokens_first(x: Tensor) -> Tensor:
    """Return `[B, F, S, C]` from `[F*S, B, C]`."""
    return frames_outside(x.transpose(0, 1))


def metric_blocks(model: Any, which: str) -> list[tuple[nn.Module, Frames]]:
    """Return the second block of each list in which the residual `which` is measured."""
    if hasattr(model, "spatial_blocks"):
        spatial = model.spatial_blocks[1], frames_outside
        temporal = model.temporal_blocks[1], frames_outside
    elif hasattr(model, "temporal_transformer_blocks"):
        spatial = model.transformer_blocks[1], frames_outside
        temporal = model.temporal_transformer_blocks[1], tokens_outside
    elif hasattr(model, "blocks"):
        spatial, temporal = (model.blocks[2], frames_outside), (model.blocks[3], tokens_outside)
    elif hasattr(model, "double_blocks"):
        return [(model.double_blocks[1], frames_outside)]
    else:
        layout = tokens_first if model.tokens_first else frames_outside
        return [(model.transformer_blocks[1], layout)]
    return {"t-attn": [temporal], "s-attn": [spatial]}.get(which, [spatial, temporal])


class ResidualRecorder:
    """Record what a block adds, from the streams before and after it and after its attention."""

    def __init__(self, block: Any, which: str, frames: Frames) -> None:
        self.which, self.frames = which, frames
        self.residuals: list[Tensor] = []
        self.x = self.after_attention = torch.empty(0)
        block.register_forward_pre_hook(self.before_block, with_kwargs=True)
        block.register_forward_hook(self.after_block)
        cross = getattr(block, "cross_attn", None) or getattr(block, "attn2", None)
        after = cross or getattr(block, "norm2", None)
        if after is not None:
            after.register_forward_pre_hook(self.before_next_module)

    def before_block(self, _block: Any, args: Any, kwargs: Any) -> None:
        self.x = args[0] if args else kwargs["hidden_states"]

    def before_next_module(self, _module: Any, args: Any) -> None:
        self.after_attention = args[0]

    def after_block(self, _block: Any, _args: Any, output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        if self.which == "block":
            added = y - self.x
        elif self.which == "ca-mlp":
            added = y - self.after_attention
        else:
            added = self.after_attention - self.x
        self.residuals.append(self.frames(added).double())


def l1(x: Tensor) -> float:
    """Return the sum of the absolute values."""
    return float(x.abs().sum())


def motion(x: Tensor) -> float:
    """Return the motion score of `x`, `[B, F, S, C]`, from each frame to the next."""
    later, earlier = x[:, 1:], x[:, :-1]
    return l1(later - earlier) / (l1(later) + l1(earlier))


RESIDUALS = [
    (name, which)
    for name in ORIGINALS
    for which in ("t-attn", "s-attn", "ca-mlp", "block")
    if not (name.startswith("Open-Sora 2") and which != "block")
    and not (
        name.startswith(("Open-Sora-Plan 1.2", "Open-Sora-Plan 1.3"))
        and which in ("t-attn", "ca-mlp")
    )
]


@pytest.mark.parametrize(("name", "which"), RESIDUALS)
def test_the_measured_residual_equals_what_the_block_adds(name: str, which: str) -> None:
    """Within 1e-4: the streams are float32, and a step changes about one fiftieth of a residual."""
    double = ORIGINALS[name]
    model = double.build()
    recorders = [
        ResidualRecorder(block, which, frames) for block, frames in metric_blocks(model, which)
    ]
    double.denoise(model, STEPS)
    model = double.build()
    has_frames = not name.startswith("Open-Sora 2")
    ak.patch(
        model,
        codebook={1.0: 1},
        cache_res=which,
        cache_loc=1,
        apply_moreg=has_frames,
        moreg_steps=(1, STEPS),
        moreg_hyp=(0.5, 1, 1),
        num_inference_steps=STEPS,
    )
    double.denoise(model, STEPS)
    summary = ak.summary(model)
    for step in range(1, STEPS):
        pairs = [(each.residuals[step - 1], each.residuals[step]) for each in recorders]
        distances = [l1(before - now) / l1(before) for before, now in pairs]
        expected = sum(distances) / len(distances)
        assert summary.raw_distances[step] == pytest.approx(expected, rel=1e-4)
        if has_frames:
            score = motion(pairs[-1][1]) / 0.5
            assert summary.motion_scores[step] == pytest.approx(score, rel=1e-4)


def test_moreg_without_frames() -> None:
    model = ORIGINALS["Open-Sora 2"].build()
    ak.patch(model, apply_moreg=True, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match=r"not known.*set apply_moreg=False"):
        ORIGINALS["Open-Sora 2"].denoise(model, STEPS)
