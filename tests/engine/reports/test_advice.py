"""The advice of each warning is followed, and steps are reused, or the warning is gone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.models.unknown_models import Optional
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.checks import no_user_warning
from tests.support.tiny_pipelines.latte_and_wan import run_wan, wan

STEPS = 8
WAN = TINY["wan"]
REUSING: dict[str, Any] = {"codebook": {1e9: 3}, "num_inference_steps": STEPS}


def test_call_model_eval() -> None:
    model = ak.patch(WAN.build().train(), **REUSING)
    with pytest.warns(ak.AdaCacheWarning, match=r"call model\.eval\(\)"):
        denoise(WAN, model, STEPS)
    denoise(WAN, model.eval(), STEPS)
    assert ak.summary(model).reused_steps


def test_use_no_grad() -> None:
    model = ak.patch(WAN.build(), **REUSING)
    for context, reuses in ((nullcontext(), False), (torch.no_grad(), True)):
        warned = pytest.warns(ak.AdaCacheWarning, match=r"use torch\.no_grad\(\)")
        with no_user_warning() if reuses else warned, context:
            for step in range(1, STEPS + 1):
                WAN.call(model, WAN.noise(), step)
        assert bool(ak.summary(model).reused_steps) is reuses


def without_temporal_residuals() -> nn.Module:
    model = TINY["latte"].build()
    out: Any = model.temporal_transformer_blocks[1].attn1.to_out[0]
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    return model


@pytest.mark.parametrize("other", [{"cache_loc": "start"}, {"cache_res": "s-attn"}])
def test_measure_another_block_or_residual(other: dict[str, Any]) -> None:
    model = ak.patch(without_temporal_residuals(), **REUSING)
    with pytest.warns(ak.AdaCacheWarning, match=r"another block \(cache_loc\) or residual"):
        denoise(TINY["latte"], model, STEPS)
    assert not ak.summary(model).reused_steps
    model = ak.patch(without_temporal_residuals(), **REUSING, **other)
    with no_user_warning():
        denoise(TINY["latte"], model, STEPS)
    assert ak.summary(model).reused_steps


def test_leave_the_number_of_steps_out() -> None:
    pipe = ak.patch(wan(), codebook={1e9: 3}, num_inference_steps=20)
    with pytest.warns(ak.AdaCacheWarning, match="leave the setting out"):
        run_wan(pipe)
    pipe = ak.patch(ak.unpatch(pipe), codebook={1e9: 3})
    with no_user_warning():
        run_wan(pipe)
    assert ak.summary(pipe).reused_steps


def test_watch_a_call_with_all_arguments() -> None:
    torch.manual_seed(0)
    model, given = Optional().eval(), {"y": noise(1, 6, 8, seed=5)}

    def generate() -> None:
        for step in range(STEPS):
            model(noise(1, 6, 4, seed=step), torch.full((1,), 930.0 - 30 * step), **given)

    ak.patch(model, **REUSING)
    with torch.no_grad():
        model(noise(1, 6, 4), torch.full((1,), 930.0))
        ak.reset(model)
        with pytest.warns(ak.AdaCacheWarning, match="unpatch the model, patch it again, and make"):
            generate()
        assert not ak.summary(model).reused_steps
        ak.patch(ak.unpatch(model), **REUSING)
        with no_user_warning():
            generate()
    assert ak.summary(model).reused_steps


def refuse_single_rows(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
    if len(args[0]) == 1:
        raise RuntimeError("two rows at least")


@pytest.mark.parametrize("batch", ["any", "mean"])
def test_take_a_batch_as_a_whole(batch: Any) -> None:
    model = WAN.build()
    model.proj_out.register_forward_pre_hook(refuse_single_rows)
    ak.patch(model, batch="each", guidance_rows=1, **REUSING)
    warned = pytest.warns(ak.AdaCacheWarning, match='choose batch="any" or "mean"')
    with warned, pytest.raises(RuntimeError, match="two rows at least"):
        denoise(WAN, model, 1, batch=2)
    ak.patch(ak.unpatch(model), batch=batch, guidance_rows=1, **REUSING)
    with no_user_warning():
        denoise(WAN, model, STEPS, batch=2)
    assert ak.summary(model).reused_steps


def test_choose_the_whole_block_if_it_is_compiled() -> None:
    def compiled() -> nn.Module:
        model = WAN.build()
        for block in model.blocks:
            block.compile(backend="eager")
        return model

    model = ak.patch(compiled(), **REUSING)
    with pytest.warns(ak.AdaCacheWarning, match='Set cache_res="block"'):
        denoise(WAN, model, 2)
    model = ak.patch(compiled(), cache_res="block", **REUSING)
    with no_user_warning():
        denoise(WAN, model, STEPS)
    assert ak.summary(model).reused_steps
