"""Exchange small messages between the hosts of the ranks, without a collective.

The ranks write to the key-value store that `torch.distributed` has set up. Nothing waits for a
device. The ranks meet when a generation begins, and not in its steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch

from ...models.other_libraries.rank_groups import RankGroup
from .agreement import unreachable

LONGEST_VALUE = 200
"""Values that are longer are not shown in messages."""


def meet(group: RankGroup, message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the message of each rank of a group, in the order of the group.

    Args:
        group: the group; all of its ranks have to call this function equally often.
        message: the message of this rank, of values that JSON has.

    Raises:
        RuntimeError: a rank did not send a message within the timeout of the group.
    """
    try:
        store = torch.distributed.distributed_c10d._get_process_group_store(group.group)
        rank, size = group.group.rank(), group.group.size()
        number = store.add(f"adacache/count/{rank}", 1)
        store.set(_key(number, rank), json.dumps(message))
        keys = [_key(number, other) for other in range(size)]
        store.wait(keys, _timeout(group))
        messages = [json.loads(store.get(key)) for key in keys]
        # Every rank has sent this message, so every rank has read the one before.
        store.delete_key(_key(number - 1, rank))
    except (RuntimeError, ValueError, KeyError) as error:
        raise RuntimeError(unreachable(group, str(error).splitlines()[0])) from error
    return messages


def check_equal(
    group: RankGroup, messages: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> None:
    """Check that the ranks have sent the same values.

    Args:
        group: the group.
        messages: the message of each rank.
        names: the values to compare.

    Raises:
        ValueError: two ranks differ; the message names the value and the ranks.
    """
    ranks = group.ranks
    for name in names:
        first = messages[0].get(name)
        for rank, message in zip(ranks[1:], messages[1:], strict=True):
            if message.get(name) != first:
                raise ValueError(
                    f"rank {rank} has {name}={_short(message.get(name))} and rank {ranks[0]} has "
                    f"{name}={_short(first)}. The ranks {list(ranks)} ({group.origin}) have to "
                    "decide as one: use the same versions, settings and files on each of them"
                )


def _key(number: int, rank: int) -> str:
    return f"adacache/{number}/{rank}"


def _timeout(group: RankGroup) -> timedelta:
    """Return the time for which the collectives of a group wait."""
    for device in group.group._device_types:
        options = getattr(group.group._get_backend(device), "options", None)
        timeout = getattr(options, "_timeout", None)
        if isinstance(timeout, timedelta):
            return timeout
    return torch.distributed.distributed_c10d._get_default_timeout(
        torch.distributed.get_backend(group.group)
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
