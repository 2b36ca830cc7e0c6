"""Pipelines that are put together from blocks, or whose transformer is of no known class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.pipeline_residual import stored_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_pipelines.pipeline import (
    STEPS,
    TinyPipeline,
    euler,
    masks,
    model,
    scheduler,
    text,
    unipc,
)


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
    with stored_blocks([pipe.transformer], STEPS, summary.computed_steps):
        expected = run(pipe)
    assert relative(found, expected) < 3e-6 < 3e-5 < relative(found, plain)


def chroma() -> nn.Module:
    import diffusers

    torch.manual_seed(0)
    transformer: nn.Module = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    ).eval()
    return transformer


CHROMA = TinyPipeline(
    "ChromaPipeline",
    lambda: {"transformer": chroma(), "scheduler": euler()},
    lambda: {**text(6, 32), **masks(6, torch.float32), "height": 64, "width": 64},
    (["0", "1"], ["0"]),
    {"guidance_scale": 1.0},
    {"width": 96},
)


def test_a_transformer_of_no_known_class() -> None:
    pipe = CHROMA.build()
    plain = CHROMA.run(pipe)
    ak.patch(pipe, codebook={float("inf"): 1})
    assert torch.equal(CHROMA.run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook={float("inf"): 3})
    CHROMA.run(pipe)
    summary = ak.summary(pipe)
    # The first forward is not measured: the first distance is known a step later than usual.
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 3, 5, 6], [4])
    assert list(summary.branches) == ["0", "1"]
    whole = CHROMA.run(pipe)
    summary = ak.summary(pipe)
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 5, 6], [3, 4])
    assert list(summary.branches) == ["0", "1"]

    def stop(_pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 2:
            raise KeyboardInterrupt
        return values

    with pytest.raises(KeyboardInterrupt):
        CHROMA.run(pipe, callback_on_step_end=stop)
    assert torch.equal(CHROMA.run(pipe), whole)
    CHROMA.run(pipe, guidance=False, other=True)
    assert list(ak.summary(pipe).branches) == ["0"]
    assert torch.equal(CHROMA.run(pipe), whole)


def test_a_pipeline_that_must_not_be_cached() -> None:
    from diffusers import AnyFlowFARPipeline, AnyFlowFARTransformer3DModel

    transformer = AnyFlowFARTransformer3DModel(
        patch_size=(1, 2, 2),
        compressed_patch_size=(1, 4, 4),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    parts = {"tokenizer": None, "text_encoder": None, "vae": None}
    pipe = AnyFlowFARPipeline(
        transformer=transformer, scheduler=scheduler("FlowMapEulerDiscreteScheduler"), **parts
    )
    with pytest.raises(ValueError, match="must not be cached: it generates a video chunk by chunk"):
        ak.patch(pipe)
    assert "step" not in vars(pipe.scheduler)
