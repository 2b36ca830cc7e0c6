"""Recognise modules whose parameters FSDP shards, by `fully_shard` or by its older wrapper."""

from __future__ import annotations

from typing import Any

from torch import nn

from .rank_groups import attribute


def fsdp_groups(module: nn.Module) -> list[Any]:
    """Return the process groups over which FSDP shards the parameters of a module."""
    if type(module).__name__ == "FullyShardedDataParallel":
        is_sharded = attribute(module, "sharding_strategy", "name") != "NO_SHARD"
        return [module.process_group] if is_sharded else []
    get_state = attribute(module, "_get_fsdp_state")
    state = get_state() if callable(get_state) else None
    # Older torch has at most one group of parameters in a module.
    of_parameters = attribute(state, "_fsdp_param_groups") or [
        attribute(state, "_fsdp_param_group")
    ]
    groups = [attribute(each, "mesh_info", "shard_process_group") for each in of_parameters]
    return [group for group in groups if group is not None]
