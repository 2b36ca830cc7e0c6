"""Recognise what excludes a cache: another cache, or an old way of offloading.

Other libraries leave marks on a model, so none of them is imported here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

TWO_CACHES = "two caches on one model would each reuse what the other has skipped"
HOOKS = "diffusers.hooks"
STREAMED_LEAVES = "LEAF_LEVEL, streams"
MARKS = ("_is_cached", "enable_teacache", "enable_magcache", "enable_easycache")
"""The attributes by which cache-dit, ParaAttention, TeaCache, MagCache and EasyCache recognise a
model they patched. VideoX-Fun has methods of such names, which show nothing."""
CACHES = ("teacache", "magcache", "easycache", "tea_cache")
"""The attributes in which other repositories hold the state of a cache while it is on."""


@dataclass(frozen=True)
class OtherPatches:
    """The patches of other libraries on one transformer.

    Args:
        cache_config: the class of the config of an enabled diffusers cache; "" if there is none.
        cache_hooks: the names of the hooks of diffusers' caches, sorted.
        offloading: the kinds of group offloading, such as "LEAF_LEVEL" or "LEAF_LEVEL, streams".
        marks: those of `MARKS` that are set on the model.
        caches: those of `CACHES` that the model holds.
    """

    cache_config: str
    cache_hooks: tuple[str, ...]
    offloading: frozenset[str]
    marks: tuple[str, ...]
    caches: tuple[str, ...] = ()


def find_other_patches(model: nn.Module) -> OtherPatches:
    """Return the patches of other libraries on a transformer."""
    cache_hooks, offloading = set(), set()
    for name, file, hook in _diffusers_hooks(model):
        if is_cache_module(file):
            cache_hooks.add(name)
        elif file == "group_offloading":
            offloading.add(_offloading_kind(hook))
    config = getattr(model, "_cache_config", None)
    return OtherPatches(
        cache_config="" if config is None else type(config).__name__,
        cache_hooks=tuple(sorted(cache_hooks)),
        offloading=frozenset(offloading),
        marks=tuple(mark for mark in MARKS if _is_on(model, mark)),
        caches=tuple(name for name in CACHES if _is_on(model, name)),
    )


def check_no_conflict(model: str, patches: OtherPatches) -> None:
    """Refuse to cache a model that another library caches.

    Args:
        model: the class of the model.
        patches: the patches of other libraries on it.

    Raises:
        ValueError: there is a conflict; the message names it and both ways to resolve it.
    """
    if patches.cache_config:
        raise ValueError(
            f"a cache of diffusers is enabled on this {model} ({patches.cache_config}), and "
            f"{TWO_CACHES}: call model.disable_cache() before patch(), or do not call patch()"
        )
    _check_offloading(model, patches.offloading)
    if patches.cache_hooks:
        raise ValueError(
            f"hooks of a cache of diffusers are on this {model} ({', '.join(patches.cache_hooks)})"
            f", and {TWO_CACHES}: remove them with HookRegistry.check_if_exists_or_initialize("
            "model).remove_hook(name, recurse=True), or do not call patch()"
        )
    if "_is_cached" in patches.marks:
        raise ValueError(
            f"cache-dit or ParaAttention caches this {model} (its _is_cached is set), and "
            f"{TWO_CACHES}: disable that (cache_dit.disable_cache(pipe); ParaAttention needs the "
            "model loaded again), or do not call patch()"
        )
    switches = [mark for mark in patches.marks if mark.startswith("enable_")]
    if switches:
        raise ValueError(
            f"another cache is on for {model} ({switches[0]} is set), and {TWO_CACHES}: set "
            f"{switches[0]} to False where it was set, on the model or its class, or do not call "
            "patch()"
        )
    if patches.caches:
        raise ValueError(
            f"another cache is on for {model} (its {patches.caches[0]} is set), and {TWO_CACHES}: "
            f"turn it off so that model.{patches.caches[0]} is None, or do not call patch()"
        )


def second_cache_error(config: object) -> ValueError:
    """Return the error for a user who enables diffusers' own cache on a patched model."""
    return ValueError(
        f"enable_cache({type(config).__name__}): this model is patched by adacache_kernels, and "
        f"{TWO_CACHES}: call adacache_kernels.unpatch() first, or do not call enable_cache()"
    )


def is_cache_module(file: str) -> bool:
    """Return True if a Python module of `diffusers.hooks`, named without a path, is a cache."""
    return file.endswith("_cache") or file == "pyramid_attention_broadcast"


def _is_on(model: nn.Module, name: str) -> bool:
    """Return True if the attribute is set, and no method of that name."""
    value = getattr(model, name, None)
    return not inspect.isroutine(value) and bool(value)


def _diffusers_hooks(model: nn.Module) -> Iterator[tuple[str, str, object]]:
    """Yield name, Python module and hook of every hook that diffusers itself has registered."""
    for module in model.modules():
        registry = vars(module).get("_diffusers_hook")
        for name, hook in getattr(registry, "hooks", {}).items():
            package, _, file = type(hook).__module__.rpartition(".")
            if package == HOOKS:
                yield name, file, hook


def _offloading_kind(hook: object) -> str:
    config = getattr(hook, "config", None)
    kind = str(getattr(config, "offload_type", "")).rpartition(".")[2]
    return f"{kind}, streams" if getattr(config, "stream", None) is not None else kind


def _check_offloading(model: str, offloading: frozenset[str]) -> None:
    """Refuse prefetching that breaks if a step skips blocks.

    With offloading by leaves, each leaf loads the next one, in the order of the first forward. In
    diffusers before 0.37, a leaf after the skipped blocks does not notice that it is not loaded.
    """
    if STREAMED_LEAVES in offloading and _diffusers() < (0, 37):
        raise ValueError(
            f"group offloading by leaves with streams is on for this {model}, which diffusers "
            f"{_diffusers()[0]}.{_diffusers()[1]} cannot do where a step skips blocks: update it "
            'to 0.37, or offload with use_stream=False or offload_type="block_level"'
        )


def _diffusers() -> tuple[int, int]:
    version = str(getattr(sys.modules.get("diffusers"), "__version__", "0.37"))
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
