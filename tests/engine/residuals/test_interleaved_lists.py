"""Interleaved lists: one residual for both, whether or not the second one runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.two_residuals_per_block import relative, two_residuals
from tests.support.tiny_models.common_models import TINY, Tiny

STEPS = 8
COMPUTED = [1, 2, 4, 7, 8]
LATTE = TINY["latte"]


def layers(count: int) -> Tiny:
    return replace(LATTE, config={**LATTE.config, "num_layers": count})


def call(tiny: Tiny, model: nn.Module, latents: Tensor, step: int, temporal: bool) -> Tensor:
    """Run one step of a denoising loop; without temporal blocks as for a single image."""
    output: Tensor = model(
        hidden_states=latents,
        encoder_hidden_states=tiny.text(latents.shape[0]),
        timestep=torch.full((latents.shape[0],), 930 - 30 * step),
        enable_temporal_attentions=temporal,
        return_dict=False,
    )[0]
    return latents - 0.05 * output


def expected(tiny: Tiny, model: nn.Module, temporal: bool) -> Tensor:
    """Return the last latents of the oracle that stores two residuals for each block."""
    now, latents = [0], tiny.noise(batch=2)
    lists = tiny.lists if temporal else tiny.lists[:1]
    with two_residuals("latte", model, lists, lambda: now[0] in COMPUTED), torch.no_grad():
        for step in range(1, STEPS + 1):
            now[0] = step
            latents = call(tiny, model, latents, step, temporal)
    return latents


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_residual_is_all_that_the_blocks_add(count: int, temporal: bool) -> None:
    """Within 1e-5: rounding only. Without one of the blocks, the error is 1e-3 and more."""
    tiny = layers(count)
    model = tiny.build()
    wanted = expected(tiny, model, temporal)
    ak.patch(model, schedule=COMPUTED, num_inference_steps=STEPS)
    latents = tiny.noise(batch=2)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            latents = call(tiny, model, latents, step, temporal)
    summary = ak.summary(model)
    assert summary.computed_steps == COMPUTED and summary.cache_tensors == 1
    assert relative(latents, wanted) < 1e-5


def test_the_second_list_may_be_left_out_in_some_calls() -> None:
    """No residual is reused in a call that runs other lists."""
    model = LATTE.build()
    ak.patch(model, schedule=[1, 5], num_inference_steps=STEPS)
    latents = LATTE.noise(batch=2)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            latents = call(LATTE, model, latents, step, temporal=step < 4)
    summary = ak.summary(model)
    assert summary.reused_steps == [2, 3, 6, 7, 8]
    assert summary.computed_steps == [1, 4, 5]


def test_a_write_into_the_first_blocks_input_gives_a_warning() -> None:
    model = LATTE.build()

    def write(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        args[0].mul_(1.001)

    model.transformer_blocks[0].register_forward_pre_hook(write)
    ak.patch(model, schedule=[1], num_inference_steps=4)
    latents = LATTE.noise(batch=2)
    with (
        pytest.warns(ak.AdaCacheWarning, match="wrote into the input of the first block"),
        torch.no_grad(),
    ):
        for step in range(1, 5):
            latents = call(LATTE, model, latents, step, temporal=True)
    assert ak.summary(model).computed_steps == [1, 2]
