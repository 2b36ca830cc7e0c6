"""Apply the splits of diffusers' context parallelism that lie on a block.

For some models (Wan, Qwen-Image) diffusers splits the streams in a hook on the first block, and so
does vLLM-Omni. The blocks then run on this rank's shard, so a residual belongs to the shard. What
enters the first block has to be split too: in a computed step to know what the blocks add, and in a
reused step because the hook does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from .torch_compile import uncompiled

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and keyword arguments of a call."""
MODULE = "diffusers.hooks.context_parallel"
SPLIT, GATHER = "ContextParallelSplitHook", "ContextParallelGatherHook"
VLLM_OMNI_SPLIT = "SequenceParallelSplitHook"


def split_arguments(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Arguments:
    """Return the arguments as the block's own forward gets them; a split is a view.

    Args:
        block: the block.
        args: positional arguments of a call of the block.
        kwargs: keyword arguments of it.
    """
    for hook in _split_hooks(block):
        args, kwargs = hook.pre_forward(block, *args, **dict(kwargs))
    return args, kwargs


def splits_streams(model: nn.Module) -> bool:
    """Return True if the blocks run on shards of the streams.

    For Helios, diffusers splits and gathers inside of each block, so that the streams stay whole.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inside = (module for blocks in lists for block in blocks for module in block.modules())
    hooks = (hook for module in inside for hook in _hooks(module))
    return not any(type(hook).__name__ == GATHER for hook in hooks)


def _split_hooks(block: nn.Module) -> Iterator[Any]:
    """Yield the hooks that split arguments, in the order in which they run."""
    # The hook that was registered last is the outermost.
    yield from (hook for hook in reversed(_hooks(block)) if type(hook).__name__ == SPLIT)
    registry = vars(uncompiled(block)).get("_hook_registry")
    for _, hook in sorted(getattr(registry, "_hooks", {}).items()):
        if type(hook).__name__ == VLLM_OMNI_SPLIT:
            yield hook


def _hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of context parallelism on a module, in the order of their registration."""
    registry = vars(uncompiled(module)).get("_diffusers_hook")
    hooks = () if registry is None else registry.hooks.values()
    return [hook for hook in hooks if type(hook).__module__ == MODULE]
