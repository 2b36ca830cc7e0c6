"""Describe groups of ranks that have to make one decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

Role = Literal["shards", "replicas", "videos"]
"""The content of the ranks of a group. "shards": parts of one video. "replicas": the same video, or
its other guidance branch. "videos": different videos, whose blocks must run at the same time."""
Cut = Literal["sequence", "space", "unknown"]
"""The way in which a video is cut into shards. "sequence": each shard is a contiguous part of the
sequence of all tokens. "space": each shard has some tokens of every frame. "unknown": the forward
may get a part of the frames, so it is not known how many there are."""


@dataclass(frozen=True)
class RankGroup:
    """A group of ranks that have to make one decision.

    Args:
        group: the process group.
        role: what its ranks hold.
        origin: the library that made it, for people.
        cut: how a video is cut, if the ranks hold shards.
        splits_rows: True if the forward splits the batch rows over the ranks.
    """

    group: Any
    role: Role
    origin: str
    cut: Cut = "sequence"
    splits_rows: bool = False

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the global ranks of the group."""
        return ranks_of(self.group)


GivenGroups = Any
"""A process group of shards, or a mapping from roles to process groups."""


def is_distributed() -> bool:
    """Return True if this process is one of several ranks."""
    distributed = torch.distributed
    is_set_up = distributed.is_available() and distributed.is_initialized()
    return is_set_up and distributed.get_world_size() > 1


def is_group(value: object) -> bool:
    """Return True if a value is a process group."""
    distributed = torch.distributed
    return distributed.is_available() and isinstance(value, distributed.ProcessGroup)


def ranks_of(group: Any) -> tuple[int, ...]:
    """Return the global ranks of a process group, in its order."""
    return tuple(torch.distributed.get_process_group_ranks(group))


def attribute(value: Any, *names: str) -> Any:
    """Return an attribute of an attribute; None if one is missing."""
    for name in names:
        value = getattr(value, name, None)
    return value


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
    by_role: Mapping[Any, Any] = given if isinstance(given, Mapping) else {"shards": given}
    for role, group in by_role.items():
        if role not in get_args(Role):
            raise ValueError(
                f"process_group has the role {role!r}; expected "
                f"{', '.join(map(repr, get_args(Role)))}"
            )
        if not is_group(group):
            raise TypeError(
                f"process_group is {group!r}, expected a torch.distributed.ProcessGroup, or a "
                'mapping such as {"shards": group}'
            )
    return by_role
