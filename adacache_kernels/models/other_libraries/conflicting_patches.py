"""What a patched model cannot live with: other caches, and splitting over ranks.

Both are told by the marks they leave on the model, without importing anyone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import nn

TWO_CACHES = "two caches on one model would each reuse what the other has skipped"


def check_neighbours(model: nn.Module) -> None:
    """Refuse to cache a model that something else caches or splits.

    Raises:
        ValueError: says what it is, and both ways out.
    """
    name = type(model).__name__
    config = getattr(model, "_cache_config", None)
    if config is not None:
        raise ValueError(
            f"a cache of diffusers is enabled on this {name} ({type(config).__name__}), and "
            f"{TWO_CACHES}: call model.disable_cache() before patch(), or do without patch()"
        )
    caching, splitting = [], []
    for hook_name, hook in _hooks(model):
        library, _, file = type(hook).__module__.rpartition(".")
        if library == "diffusers.hooks" and _is_cache(file):
            caching.append(hook_name)
        if library == "diffusers.hooks" and file == "context_parallel":
            splitting.append(hook_name)
        if library == "diffusers.hooks" and file == "group_offloading":
            _check_prefetching(name, hook)
    if caching:
        raise ValueError(
            f"hooks of a cache of diffusers are on this {name} ({', '.join(sorted(set(caching)))})"
            f", and {TWO_CACHES}: remove them with HookRegistry.check_if_exists_or_initialize("
            "model).remove_hook(name, recurse=True), or do without patch()"
        )
    if splitting:
        raise ValueError(
            f"context parallelism is enabled on this {name} (hook {splitting[0]}), where each rank "
            "would decide by its own part of the video and wait forever for a rank that decided "
            "otherwise: load it without a parallel config, or do without patch()"
        )
    _check_marks(model)


def _check_prefetching(name: str, hook: object) -> None:
    """Leaf by leaf, each loads the next one, in the order of the first forward.

    What comes after skipped blocks then finds out by itself that it was not loaded, or it does not.
    """
    config = getattr(hook, "config", None)
    by_leaves = str(getattr(config, "offload_type", "")).endswith("LEAF_LEVEL")
    if by_leaves and getattr(config, "stream", None) is not None and _diffusers() < (0, 37):
        raise ValueError(
            f"group offloading by leaves with streams is on for this {name}, which diffusers "
            f"{_diffusers()[0]}.{_diffusers()[1]} cannot do where a step skips blocks: update it "
            'to 0.37, or offload with use_stream=False or offload_type="block_level"'
        )


def _diffusers() -> tuple[int, int]:
    version = str(getattr(sys.modules.get("diffusers"), "__version__", "0.37"))
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _check_marks(model: nn.Module) -> None:
    """The attributes by which other libraries know what they have patched."""
    name = type(model).__name__
    if getattr(model, "_is_cached", False):
        raise ValueError(
            f"cache-dit or ParaAttention caches this {name} (its _is_cached is set), and "
            f"{TWO_CACHES}: disable that (cache_dit.disable_cache(pipe); ParaAttention needs the "
            "model loaded anew), or do without patch()"
        )
    if getattr(model, "enable_teacache", False):
        raise ValueError(
            f"TeaCache is on for {name} (enable_teacache is set), and {TWO_CACHES}: load the model "
            "in a process where TeaCache's script has not replaced its class's forward, or do "
            "without patch()"
        )


def refusal_of_another_cache(config: object) -> ValueError:
    """The error for who enables diffusers' own cache on a patched model."""
    return ValueError(
        f"enable_cache({type(config).__name__}): this model is patched by adacache_kernels, and "
        f"{TWO_CACHES}: call adacache_kernels.unpatch() first, or do without enable_cache()"
    )


def _hooks(model: nn.Module) -> Iterator[tuple[str, object]]:
    for module in model.modules():
        registry = vars(module).get("_diffusers_hook")
        yield from getattr(registry, "hooks", {}).items()


def _is_cache(file: str) -> bool:
    return file.endswith("_cache") or file == "pyramid_attention_broadcast"
