"""Find the groups of ranks over which a model is spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from torch import nn

from .groups_of_libraries import groups_of_libraries
from .groups_of_models import groups_of_model
from .rank_groups import RankGroup, Role, is_distributed, is_group


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
        found = [*groups_of_model(model), *groups_of_libraries(model)]
    order = get_args(Role)
    groups: dict[tuple[int, ...], RankGroup] = {}
    for group in sorted(found, key=lambda each: order.index(each.role)):
        if is_group(group.group) and group.group.size() > 1:
            groups.setdefault(tuple(sorted(group.ranks)), group)
    return tuple(groups.values())
