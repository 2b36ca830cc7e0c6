"""Pipelines that are put together from blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import adacache_kernels as ak
from oracle import relative
from residual_oracle import kept_blocks
from tiny_pipeline import STEPS, model, text, unipc


def build() -> Any:
    """Wan's, without the blocks that need a text encoder and a VAE."""
    from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks

    blocks = WanBlocks()
    for name in ("text_encoder", "decode"):
        blocks.sub_blocks.pop(name)
    pipe = blocks.init_pipeline()
    transformer = model("wan", in_channels=16, out_channels=16)
    pipe.update_components(transformer=transformer, scheduler=unipc())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: Any) -> Tensor:
    latents: Tensor = pipe(
        **text(6, 16),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        output="latents",
    )
    return latents


def test_a_modular_pipeline() -> None:
    """Within 3e-6 of the oracle, as in test_all_pipelines.py."""
    pipe = build()
    plain = run(pipe)
    ak.patch(pipe, codebook={float("inf"): 1})
    assert torch.equal(run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook={float("inf"): 3})
    found = run(pipe)
    summary = ak.summary(pipe)
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 5, 6], [3, 4])
    assert list(summary.branches) == ["0", "1"]
    assert torch.equal(run(pipe), found)
    ak.unpatch(pipe)
    with kept_blocks([pipe.transformer], STEPS, summary.computed_steps):
        expected = run(pipe)
    assert relative(found, expected) < 3e-6 < 3e-5 < relative(found, plain)
