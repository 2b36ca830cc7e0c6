"""Test pipelines of modular blocks, and pipelines whose transformer's class is not known."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.tiny_pipelines import branches
from tests.support.tiny_pipelines.call_arguments import SMALL, masks, text
from tests.support.tiny_pipelines.checks import (
    ALWAYS,
    EVERY_THIRD,
    check_every_third,
    check_oracle,
    interrupt,
)
from tests.support.tiny_pipelines.pipeline import STEPS, TinyPipeline, model
from tests.support.tiny_pipelines.schedulers import scheduler, unipc


def build() -> Any:
    """Build Wan's modular pipeline without the blocks that need a text encoder and a VAE."""
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
        **SMALL,
        num_frames=9,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(0),
        output="latents",
    )
    return latents


def test_a_modular_pipeline() -> None:
    pipe = build()
    plain = run(pipe)
    ak.patch(pipe, codebook=ALWAYS)
    assert torch.equal(run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    latents = run(pipe)
    check_every_third(pipe, STEPS)
    assert list(ak.summary(pipe).branches) == ["0", "1"]
    assert torch.equal(run(pipe), latents)
    check_oracle(pipe, latents, partial(run, pipe))


CHROMA = TinyPipeline(
    "ChromaPipeline",
    "chroma",
    branches.UNNAMED,
    lambda: {**text(6, 32), **masks(6, torch.float32), **SMALL},
    other={"width": 96},
)


def test_a_transformer_of_no_known_class() -> None:
    pipe = CHROMA.build()
    plain = CHROMA.run(pipe)
    ak.patch(pipe, codebook=ALWAYS)
    assert torch.equal(CHROMA.run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    CHROMA.run(pipe)
    summary = ak.summary(pipe)
    # The first forward is not measured: the first distance is known a step later than usual.
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 3, 5, 6], [4])
    assert list(summary.branches) == ["0", "1"]
    whole = CHROMA.run(pipe)
    check_every_third(pipe, STEPS)
    assert list(ak.summary(pipe).branches) == ["0", "1"]
    interrupt(partial(CHROMA.run, pipe), 2)
    assert torch.equal(CHROMA.run(pipe), whole)
    CHROMA.run(pipe, guidance=False, other=True)
    assert list(ak.summary(pipe).branches) == ["0"]
    assert torch.equal(CHROMA.run(pipe), whole)


def test_a_pipeline_that_must_not_be_cached() -> None:
    from diffusers import AnyFlowFARPipeline

    pipe = AnyFlowFARPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=model("anyflow, chunk by chunk"),
        scheduler=scheduler("FlowMapEulerDiscreteScheduler"),
    )
    with pytest.raises(ValueError, match="must not be cached: it generates a video chunk by chunk"):
        ak.patch(pipe)
    assert "step" not in vars(pipe.scheduler)
