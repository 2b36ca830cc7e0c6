"""Find the groups of ranks over which other libraries spread a model.

None of these libraries is imported here: a library that was not imported has set up no groups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from .split_hooks import splits_streams

Role = Literal["shards", "replicas", "videos"]
"""What the ranks of a group hold. "shards": parts of one video. "replicas": the same video, or its
other guidance branch. "videos": different videos, whose blocks must run at the same time."""


@dataclass(frozen=True)
class RankGroup:
    """A group of ranks that have to make one decision.

    Args:
        group: the process group.
        role: what its ranks hold.
        origin: the library that made it, for people.
        keeps_frames: True if each shard has some tokens of every frame; False if it is a
            contiguous part of the sequence of all tokens.
    """

    group: Any
    role: Role
    origin: str
    keeps_frames: bool = False

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the global ranks of the group."""
        return tuple(torch.distributed.get_process_group_ranks(self.group))


GivenGroups = Any
"""A process group of shards, or a mapping from roles to process groups."""


def is_distributed() -> bool:
    """Return True if this process is one of several ranks."""
    distributed = torch.distributed
    is_set_up = distributed.is_available() and distributed.is_initialized()
    return is_set_up and distributed.get_world_size() > 1


def check_given(given: GivenGroups) -> Mapping[Role, Any]:
    """Return the process groups that the user gave, by role.

    Args:
        given: a process group, whose ranks hold shards of one video; or a mapping from "shards",
            "replicas" or "videos" to process groups; or None.

    Raises:
        TypeError: it is something else.
        ValueError: a role is unknown.
    """
    if given is None:
        return {}
    by_role = given if isinstance(given, Mapping) else {"shards": given}
    for role, group in by_role.items():
        if role not in get_args(Role):
            raise ValueError(
                f"process_group has the role {role!r}; expected "
                f"{', '.join(map(repr, get_args(Role)))}"
            )
        if not _is_group(group):
            raise TypeError(
                f"process_group is {group!r}, expected a torch.distributed.ProcessGroup, or a "
                'mapping such as {"shards": group}'
            )
    return by_role


def find_rank_groups(model: nn.Module, given: Mapping[Role, Any]) -> tuple[RankGroup, ...]:
    """Return the groups of ranks that have to make one decision, each set of ranks once.

    Args:
        model: the transformer.
        given: the groups that the user gave. If there are any, no other group is looked for.

    Raises:
        ValueError: the model is spread in a way in which it cannot be cached.
    """
    if not is_distributed():
        return ()
    if given:
        found = [RankGroup(group, role, "process_group=") for role, group in given.items()]
    else:
        found = [*_of_model(model), *_of_libraries()]
    order = get_args(Role)
    groups: dict[tuple[int, ...], RankGroup] = {}
    for group in sorted(found, key=lambda each: order.index(each.role)):
        if _is_group(group.group) and group.group.size() > 1:
            groups.setdefault(tuple(sorted(group.ranks)), group)
    return tuple(groups.values())


def _is_group(value: object) -> bool:
    distributed = torch.distributed
    return distributed.is_available() and isinstance(value, distributed.ProcessGroup)


def _of_model(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the groups that a model itself shows."""
    config = getattr(model, "_parallel_config", None)
    mesh = _attribute(config, "context_parallel_config", "_flattened_mesh")
    if mesh is not None:
        role: Role = "shards" if splits_streams(model) else "replicas"
        yield RankGroup(mesh.get_group(), role, "diffusers' context parallelism")
    manager = getattr(model, "parallel_manager", None)
    if getattr(manager, "sp_group", None) is not None:
        yield RankGroup(manager.sp_group, "shards", "VideoSys", keeps_frames=True)
    if getattr(manager, "cp_group", None) is not None:
        yield RankGroup(manager.cp_group, "replicas", "VideoSys' guidance parallelism")
    of_shards = _attribute(model, "shard_config", "sequence_parallel_process_group")
    if of_shards is not None:
        yield RankGroup(of_shards, "shards", "ColossalAI's sequence parallelism")
    yield from _of_parameters(model)


def _of_parameters(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the groups of FSDP, and those of tensors that are split by tensor parallelism."""
    of_fsdp: set[tuple[int, ...]] = set()
    for module in model.modules():
        group = _fsdp_group(module)
        if group is not None and _ranks_of(group) not in of_fsdp:
            of_fsdp.add(_ranks_of(group))
            yield RankGroup(group, "videos", "FSDP")
    for mesh in {id(mesh): mesh for mesh in _meshes(model)}.values():
        for name in mesh.mesh_dim_names or (None,):
            group = mesh.get_group(name) if mesh.ndim > 1 else mesh.get_group()
            if _ranks_of(group) not in of_fsdp:
                yield RankGroup(group, "replicas", "tensor parallelism")


def _fsdp_group(module: nn.Module) -> Any:
    """Return the group over which FSDP shards the parameters of a module, or None."""
    if type(module).__name__ == "FullyShardedDataParallel":
        return getattr(module, "process_group", None)
    state = getattr(module, "_get_fsdp_state", None)
    mesh_info = _attribute(state() if callable(state) else None, "_fsdp_param_group", "mesh_info")
    return getattr(mesh_info, "shard_process_group", None)


def _meshes(model: nn.Module) -> Iterator[Any]:
    """Yield the device meshes of parameters that are DTensors."""
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None:
            yield mesh


def _of_libraries() -> Iterator[RankGroup]:
    """Yield the groups of libraries that keep them in global variables."""
    for name in COORDINATED:
        yield from _of_coordinators(name)
    for name, of_frames in (
        ("opensora.acceleration.parallel_states", True),
        ("opensora_base.opensora.acceleration.parallel_states", True),
    ):
        group = _called(name, "get_sequence_parallel_group")
        if group is not None:
            yield RankGroup(group, "shards", "Open-Sora", keeps_frames=of_frames)
    info = getattr(sys.modules.get("opensora.utils.parallel_states"), "nccl_info", None)
    if getattr(info, "group", None) is not None:
        yield RankGroup(info.group, "shards", "Open-Sora-Plan")


COORDINATED = (
    "xfuser.core.distributed",
    "vllm_omni.diffusion.distributed.parallel_state",
    "sglang.multimodal_gen.runtime.distributed.parallel_state",
)
"""Modules with functions that return coordinators, objects with a `device_group`."""
ROLES: Mapping[str, Role] = {
    "get_sp_group": "shards",
    "get_tp_group": "replicas",
    "get_cfg_group": "replicas",
}


def _of_coordinators(name: str) -> Iterator[RankGroup]:
    library = name.partition(".")[0]
    pipeline = getattr(_called(name, "get_pp_group"), "device_group", None)
    if _is_group(pipeline) and pipeline.size() > 1:
        raise ValueError(
            f"{library} splits this model over {pipeline.size()} ranks by its blocks (pipeline "
            "parallelism). No rank sees what all blocks add, so the model cannot be cached: use "
            "sequence parallelism (ulysses or ring), or do not call patch()"
        )
    for function, role in ROLES.items():
        group = getattr(_called(name, function), "device_group", None)
        if group is not None:
            yield RankGroup(group, role, library)


def _called(module: str, function: str) -> Any:
    """Return what a function of an imported module returns; None if its groups are not set up."""
    call: Callable[[], Any] | None = getattr(sys.modules.get(module), function, None)
    if call is None:
        return None
    try:
        return call()
    except (AssertionError, RuntimeError, ValueError, KeyError):
        return None


def _attribute(value: Any, *names: str) -> Any:
    for name in names:
        value = getattr(value, name, None)
    return value


def _ranks_of(group: Any) -> tuple[int, ...]:
    return tuple(torch.distributed.get_process_group_ranks(group))
