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
DIFFUSERS = "diffusers.hooks.context_parallel"


def split_arguments(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Arguments:
    """Return the arguments as the block's own forward gets them; a split is a view.

    Args:
        block: the block.
        args: positional arguments of a call of the block.
        kwargs: keyword arguments of it.
    """
    for hook in split_hooks(block):
        args, kwargs = hook.pre_forward(block, *args, **dict(kwargs))
    return args, kwargs


def splits_streams(model: nn.Module) -> bool:
    """Return True if diffusers splits hidden streams before the blocks, and not inside of them."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    modules = (model, *(block for blocks in lists for block in blocks))
    plans = [plan for module in modules for hook in split_hooks(module) for plan in _plans(hook)]
    return any(plan.expected_dims in (None, 3, 4, 5) for plan in plans)


def _plans(hook: Any) -> list[Any]:
    """Return the plans by which a hook splits arguments of its module."""
    values = hook.metadata.values()
    plans = [plan for value in values for plan in (value if isinstance(value, list) else [value])]
    return [plan for plan in plans if not getattr(plan, "split_output", True)]


def split_hooks(block: nn.Module) -> Iterator[Any]:
    """Yield the hooks that split arguments, in the order in which they run."""
    attributes = vars(uncompiled(block))
    if "_diffusers_hook" in attributes:
        # The hook that was registered last is the outermost.
        for hook in reversed(list(attributes["_diffusers_hook"].hooks.values())):
            if type(hook).__module__ == DIFFUSERS and hasattr(hook, "metadata"):
                yield hook
    if "_hook_registry" in attributes:
        for _, hook in sorted(getattr(attributes["_hook_registry"], "_hooks", {}).items()):
            if type(hook).__name__ == "SequenceParallelSplitHook":
                yield hook
