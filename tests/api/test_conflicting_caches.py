"""Conflicts with other libraries are refused in both orders, and both ways to resolve them work."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.models.other_libraries.conflicting_patches import (
    OtherPatches,
    is_cache_module,
)
from adacache_kernels.models.other_libraries.inspection import Inspection, inspect
from tests.api.tiny_wan import COMPUTED, EVERY_THIRD, STEPS, build, patch, run
from tests.support.tiny_pipelines.latte_and_wan import run_wan
from tests.support.tiny_pipelines.latte_and_wan import wan as wan_pipeline


def first_block() -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=0.1)


def pyramid() -> Any:
    from diffusers import PyramidAttentionBroadcastConfig

    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_block_identifiers=["blocks"],
        current_timestep_callback=lambda: 500,
    )


def faster() -> Any:
    from diffusers import FasterCacheConfig

    return FasterCacheConfig(
        spatial_attention_block_identifiers=["blocks.*attn1"],
        temporal_attention_block_identifiers=["temporal"],
        current_timestep_callback=lambda: 500,
        tensor_format="BCFHW",
    )


def taylor() -> Any:
    from diffusers import TaylorSeerCacheConfig

    return TaylorSeerCacheConfig()


def mag() -> Any:
    from diffusers import MagCacheConfig

    return MagCacheConfig(mag_ratios=torch.ones(STEPS), num_inference_steps=STEPS)


CONFIGS = [first_block, pyramid, faster, taylor, mag]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_cache_of_diffusers_is_refused_on_a_patched_model(config: Callable[[], Any]) -> None:
    model = build()
    plain = run(model)
    patch(model)
    match = rf"{type(config()).__name__}.*unpatch\(\) first, or do not call enable_cache"
    with pytest.raises(ValueError, match=match):
        model.enable_cache(config())
    assert not model.is_cache_enabled
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED
    ak.unpatch(model)
    assert "enable_cache" not in vars(model)
    model.enable_cache(config())
    assert model.is_cache_enabled
    model.disable_cache()
    assert torch.equal(run(model), plain)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_model_with_a_cache_of_diffusers_is_not_patched(config: Callable[[], Any]) -> None:
    model, name = build(), type(config()).__name__
    model.enable_cache(config())
    before = dict(vars(model))
    with pytest.raises(ValueError, match=rf"{name}.*call model.disable_cache\(\) before patch"):
        patch(model)
    assert vars(model) == before and not ak.is_patched(model)
    model.disable_cache()
    patch(model)
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED


def test_hooks_without_a_config_are_named() -> None:
    """`apply_first_block_cache` stores no config on the model; `disable_cache` removes no hook."""
    from diffusers.hooks import HookRegistry, apply_first_block_cache

    model = build()
    apply_first_block_cache(model, first_block())
    match = r"fbc_block_hook, fbc_leader_block_hook.*remove_hook\(name, recurse=True\)"
    with pytest.raises(ValueError, match=match):
        patch(model)
    registry = HookRegistry.check_if_exists_or_initialize(model)
    for name in ("fbc_block_hook", "fbc_leader_block_hook"):
        registry.remove_hook(name, recurse=True)
    patch(model)
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED


def test_hooks_that_come_after_patch_are_refused_when_a_generation_begins() -> None:
    from diffusers.hooks import apply_first_block_cache

    pipe = ak.patch(wan_pipeline(), codebook=EVERY_THIRD)
    apply_first_block_cache(pipe.transformer, first_block())
    with pytest.raises(ValueError, match="fbc_block_hook"):
        run_wan(pipe)
    assert "blocks" not in vars(pipe.transformer)


def test_if_one_transformer_of_a_pipeline_is_cached_neither_is_patched() -> None:
    from tests.support.tiny_pipelines.two_experts import experts

    pipe = experts()
    pipe.transformer_2.enable_cache(first_block())
    with pytest.raises(ValueError, match="FirstBlockCacheConfig"):
        ak.patch(pipe)
    assert not ak.is_patched(pipe.transformer)
    assert "step" not in vars(pipe.scheduler)


def test_hooks_of_context_parallelism_are_no_conflict() -> None:
    """They are on the first block, where they split the tokens among the ranks."""
    from diffusers.hooks import HookRegistry
    from diffusers.hooks.context_parallel import ContextParallelSplitHook

    model = build()
    registry = HookRegistry.check_if_exists_or_initialize(model.blocks[0])
    registry.register_hook(ContextParallelSplitHook({}, None), "cp_input---blocks.0")
    patch(model)
    run(model)
    assert ak.summary(model).reused_steps


@pytest.mark.parametrize(
    ("mark", "named"),
    [
        (
            "_is_cached",
            r"cache-dit or ParaAttention.*cache_dit.disable_cache\(pipe\).*do not call",
        ),
        ("enable_teacache", "another cache is on.*set enable_teacache to False.*do not call patch"),
    ],
)
def test_the_marks_of_other_libraries_are_recognised(mark: str, named: str) -> None:
    model = build()
    setattr(model, mark, True)
    with pytest.raises(ValueError, match=named):
        patch(model)
    delattr(model, mark)
    patch(model)
    setattr(model, mark, True)
    with pytest.raises(ValueError, match=named):
        run(model)
    setattr(model, mark, False)
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED


def test_a_hook_of_another_library_with_such_a_name_is_no_cache() -> None:
    """The module of a hook's class decides, because anybody may give a hook any name."""
    from diffusers.hooks import HookRegistry, ModelHook

    model = build()
    HookRegistry.check_if_exists_or_initialize(model).register_hook(ModelHook(), "fbc_block_hook")
    patch(model)
    theirs = types.new_class("Theirs", (ModelHook,))
    theirs.__module__ = "theirs.hooks.first_block_cache"
    HookRegistry.check_if_exists_or_initialize(model).register_hook(theirs(), "another")
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED


def test_an_inspection_names_what_is_on_a_model(tmp_path: Path) -> None:
    """The model has all kinds of marks at once, and a wrapper of torch.compile around it."""
    from accelerate.hooks import ModelHook, add_hook_to_module
    from diffusers.hooks import apply_first_block_cache, apply_group_offloading

    assert inspect(build()) == Inspection(
        "WanTransformer3DModel", None, OtherPatches("", (), frozenset(), ()), ()
    )
    model, cpu = build(), torch.device("cpu")
    apply_group_offloading(
        model, cpu, cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path)
    )
    apply_first_block_cache(model, first_block())
    add_hook_to_module(model, ModelHook())
    model._is_cached = True
    wrapped: Any = torch.compile(model, backend="eager")
    found = inspect(wrapped)
    assert (found.model, found.compiled_by) == ("WanTransformer3DModel", "wrapper")
    assert found.forward_wrappers[0] == "accelerate.hooks"
    assert "diffusers.hooks.hooks" in found.forward_wrappers
    assert found.patches == OtherPatches(
        cache_config="",
        cache_hooks=("fbc_block_hook", "fbc_leader_block_hook"),
        offloading=frozenset({"LEAF_LEVEL"}),
        marks=("_is_cached",),
    )


def test_every_hook_of_a_cache_of_diffusers_is_known() -> None:
    """This lists all modules of diffusers' hooks, so a cache in a new version fails the test."""
    import diffusers.hooks

    names = {name.rpartition(".")[2] for name in sys.modules if name.startswith("diffusers.hooks.")}
    caches = {name for name in names if is_cache_module(name)}
    others = {
        "_common",
        "_helpers",
        "context_parallel",
        "group_offloading",
        "hooks",
        "layer_skip",
        "layerwise_casting",
        "smoothed_energy_guidance_utils",
        "tensor_parallel",
        "tensor_parallel_neuron",
        "utils",
    }
    assert diffusers.hooks and names - others == caches
