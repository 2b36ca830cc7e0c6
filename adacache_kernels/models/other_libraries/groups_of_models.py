"""Find the groups of ranks that a model itself shows: in its attributes and parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from .fsdp import fsdp_groups
from .rank_groups import Cut, RankGroup, Role, attribute, ranks_of
from .split_hooks import splits_streams

VIDEOSYS = "VideoSys"


def groups_of_model(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the groups that a model shows, also groups of one rank."""
    config = getattr(model, "_parallel_config", None)
    mesh = attribute(config, "context_parallel_config", "_flattened_mesh")
    if mesh is not None:
        role: Role = "shards" if splits_streams(model) else "replicas"
        yield RankGroup(mesh.get_group(), role, "diffusers' context parallelism")
    manager = getattr(model, "parallel_manager", None)
    yield RankGroup(attribute(manager, "sp_group"), "shards", VIDEOSYS, cut_of(model))
    cp_group, origin = attribute(manager, "cp_group"), "VideoSys' guidance parallelism"
    yield RankGroup(cp_group, "replicas", origin, splits_rows=True)
    yield from _of_colossalai(model)
    yield from _of_parameters(model)


def cut_of(model: nn.Module) -> Cut:
    """Return how Open-Sora and VideoSys cut videos for a model.

    STDiT3 cuts every frame, because its temporal blocks need all frames of a token. The other
    models cut the sequence of tokens or of frames.
    """
    return "space" if hasattr(model, "temporal_blocks") else "sequence"


def _of_colossalai(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the group of ColossalAI's shards, which the processors of Open-Sora 2 know."""
    for module in model.modules():
        config = attribute(module, "processor", "shard_config")
        if getattr(config, "enable_sequence_parallelism", False):
            group = config.sequence_parallel_process_group
            yield RankGroup(group, "shards", "ColossalAI's sequence parallelism")
            return


def _of_parameters(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the groups of FSDP, and those of tensors that are split by tensor parallelism."""
    of_fsdp: set[tuple[int, ...]] = set()
    for module in model.modules():
        for group in fsdp_groups(module):
            if ranks_of(group) not in of_fsdp:
                of_fsdp.add(ranks_of(group))
                yield RankGroup(group, "videos", "FSDP")
    # A dictionary keeps the order, which has to be the same on every rank.
    split: dict[tuple[Any, int], None] = {}
    for parameter in model.parameters():
        mesh, placements = attribute(parameter, "device_mesh"), attribute(parameter, "placements")
        # FSDP with replicas (HSDP) replicates a parameter over ranks that need not agree.
        dims = [dim for dim, each in enumerate(placements or ()) if not each.is_replicate()]
        split.update(dict.fromkeys((mesh, dim) for dim in dims))
    for mesh, dim in split:
        group = mesh.get_group(dim)
        if ranks_of(group) not in of_fsdp:
            yield RankGroup(group, "replicas", "tensor parallelism")
