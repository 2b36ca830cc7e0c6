"""Adapters of weights, copies, files, dtypes and other caches, on a patched model."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from oracle import relative
from tiny_chained import VIDEOS, TinyClass, denoise

STEPS = 9
ALWAYS = {"codebook": {1.0: 1}, "num_inference_steps": STEPS}
EVERY_THIRD = {"codebook": {float("inf"): 3}, "num_inference_steps": STEPS}
TINY = VIDEOS["skyreels"]


def set_processors(model: nn.Module) -> None:
    model.set_attn_processor(model.attn_processors)


class Adapted(nn.Module):
    """A low-rank addition around a linear layer, as LoRA libraries put it in."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        generator = torch.Generator().manual_seed(5)
        self.down = torch.randn(2, base.in_features, generator=generator) * 0.1
        self.up = torch.randn(base.out_features, 2, generator=generator) * 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def load(model: nn.Module) -> None:
    for block in model.blocks:
        block.attn1.to_q = Adapted(block.attn1.to_q)


def fuse(model: nn.Module) -> None:
    with torch.no_grad():
        for block in model.blocks:
            adapted = block.attn1.to_q
            adapted.base.weight += adapted.up @ adapted.down
            block.attn1.to_q = adapted.base


def same_run(model: nn.Module) -> None:
    """A patched model runs as a new one with its weights would."""
    fresh = copy.deepcopy(model)
    ak.patch(fresh, **EVERY_THIRD)
    expected, found = denoise(TINY, fresh, STEPS), denoise(TINY, model, STEPS)
    assert all(map(torch.equal, expected, found))
    assert ak.summary(model).reused_steps


def test_adapters_of_weights_come_and_go_between_runs() -> None:
    model = TINY.build()
    ak.patch(model, **EVERY_THIRD)
    plain = denoise(TINY, model, STEPS)
    load(model)
    same_run(model)
    assert relative(denoise(TINY, model, STEPS)[-1], plain[-1]) > 1e-4
    fuse(model)
    same_run(model)


def test_lora_by_peft() -> None:
    """Loaded, scaled, fused and unloaded on a patched model."""
    pytest.importorskip("peft")
    from peft import LoraConfig

    model = TINY.build()
    plain = denoise(TINY, model, STEPS)
    ak.patch(model, **ALWAYS)
    config = LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    torch.manual_seed(3)
    model.add_adapter(config)
    adapted = denoise(TINY, model, STEPS)
    ak.unpatch(model)
    assert all(map(torch.equal, adapted, denoise(TINY, model, STEPS)))
    assert relative(adapted[-1], plain[-1]) > 1e-4
    ak.patch(model, **EVERY_THIRD)
    denoise(TINY, model, STEPS)
    assert ak.summary(model).reused_steps
    model.fuse_lora()
    model.unload_lora()
    denoise(TINY, model, STEPS)
    assert ak.summary(model).reused_steps
    ak.unpatch(model)


def test_fused_projections_and_processors_after_the_patch() -> None:
    tiny = VIDEOS["hunyuan"]
    model = tiny.build()
    ak.patch(model, **EVERY_THIRD)
    set_processors(model)
    plain = denoise(tiny, model, STEPS)
    ak.unpatch(model)
    fused = TINY.build()
    ak.patch(fused, **EVERY_THIRD)
    expected = denoise(TINY, fused, STEPS)
    for module in fused.modules():
        if hasattr(module, "fuse_projections"):
            module.fuse_projections()
    assert relative(denoise(TINY, fused, STEPS)[-1], expected[-1]) < 1e-5
    assert torch.isfinite(plain[-1]).all()


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_is_not_patched(how: str) -> None:
    """And the model that was copied still is; the copy has blocks of its own."""
    model = TINY.build()
    plain = denoise(TINY, model, STEPS)
    ak.patch(model, **EVERY_THIRD)
    denoise(TINY, model, 3)
    if how == "deepcopy":
        other = copy.deepcopy(model)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert ak.is_patched(model) and not ak.is_patched(other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(map(torch.equal, plain, denoise(TINY, other, STEPS)))
    other.enable_cache  # noqa: B018
    ak.patch(other, **EVERY_THIRD)
    denoise(TINY, other, STEPS)
    assert ak.summary(other).reused_steps


def test_state_and_saving_are_those_of_the_model(tmp_path: Path) -> None:
    model = TINY.build()
    keys, plain = list(model.state_dict()), denoise(TINY, model, STEPS)
    ak.patch(model, **EVERY_THIRD)
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert not ak.is_patched(loaded)
    assert all(map(torch.equal, plain, denoise(TINY, loaded, STEPS)))
    model.load_state_dict(loaded.state_dict())
    denoise(TINY, model, STEPS)
    assert ak.summary(model).reused_steps


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float64])
def test_another_dtype_between_runs(to: torch.dtype) -> None:
    model = TINY.build()
    ak.patch(model, **EVERY_THIRD)
    denoise(TINY, model, STEPS)
    model.to(to)
    fresh = ak.patch(copy.deepcopy(model), **EVERY_THIRD)
    for step in range(1, STEPS + 1):
        arguments = TINY.inputs(torch.ones(TINY.latents) / step, step)
        cast = {k: v.to(to) if v.is_floating_point() else v for k, v in arguments.items()}
        with torch.no_grad():
            assert torch.equal(model(**cast).sample, fresh(**cast).sample)
    assert ak.summary(model).reused_steps
    assert ak.summary(model).computed_steps == ak.summary(fresh).computed_steps


def caches() -> list[tuple[str, Any]]:
    import diffusers

    def timestep() -> int:
        return 500

    return [
        ("FirstBlockCacheConfig", diffusers.FirstBlockCacheConfig(threshold=0.1)),
        (
            "PyramidAttentionBroadcastConfig",
            diffusers.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2, current_timestep_callback=timestep
            ),
        ),
        ("TaylorSeerCacheConfig", diffusers.TaylorSeerCacheConfig()),
    ]


# Its blocks are in diffusers' own table, without which its caches refuse them.
CACHED: TinyClass = VIDEOS["ltx"]


@pytest.mark.parametrize("name, config", caches(), ids=lambda value: str(value)[:12])
def test_two_caches_on_one_model_are_refused_both_ways(name: str, config: Any) -> None:
    model = CACHED.build()
    ak.patch(model, **EVERY_THIRD)
    with pytest.raises(ValueError, match=rf"enable_cache\({name}\): this model is patched by"):
        model.enable_cache(config)
    ak.unpatch(model)
    model.enable_cache(config)
    with pytest.raises(ValueError, match=rf"is enabled on this LTX\w* \({name}\)"):
        ak.patch(model, **EVERY_THIRD)
    model.disable_cache()
    ak.patch(model, **EVERY_THIRD)
    denoise(CACHED, model, STEPS)
    assert ak.summary(model).reused_steps


def test_a_cache_that_is_applied_past_the_model_is_seen() -> None:
    """By its hooks: when patching, and when a generation begins."""
    from diffusers import FirstBlockCacheConfig
    from diffusers.hooks import apply_first_block_cache

    config = FirstBlockCacheConfig(threshold=0.1)
    before = CACHED.build()
    apply_first_block_cache(before, config)
    with pytest.raises(ValueError, match=r"hooks of a cache of diffusers are on.*fbc_leader_"):
        ak.patch(before, **EVERY_THIRD)
    after = CACHED.build()
    ak.patch(after, **EVERY_THIRD)
    apply_first_block_cache(after, config)
    with pytest.raises(ValueError, match=r"hooks of a cache of diffusers are on.*fbc_leader_"):
        denoise(CACHED, after, STEPS)


def test_a_mark_of_another_library() -> None:
    model = TINY.build()
    model._is_cached = True
    with pytest.raises(ValueError, match=r"caches this SkyReels.* \(its _is_cached is set\)"):
        ak.patch(model, **EVERY_THIRD)


def test_a_pipeline_whose_patched_transformer_is_never_called() -> None:
    """Replaced after the patch: told after a few steps, for nothing is cached."""
    from test_pipelines import run_wan, wan

    pipe = wan()
    ak.patch(pipe, codebook={float("inf"): 3})
    patched, pipe.transformer = pipe.transformer, copy.deepcopy(pipe.transformer)
    with pytest.warns(ak.AdaCacheWarning, match="without a call of the patched transformer"):
        run_wan(pipe)
    pipe.transformer = patched
    run_wan(pipe)
    assert ak.summary(pipe).reused_steps
