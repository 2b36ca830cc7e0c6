"""The arena that several models share, and the lease of each."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from adacache_kernels.memory.arena_provider import ArenaProvider, LeasedArena
from adacache_kernels.memory.errors import ArenaError

CPU = torch.device("cpu")


def test_an_arena_lives_as_long_as_it_has_users() -> None:
    provider = ArenaProvider("1MiB")
    users = [LeasedArena(provider) for _ in range(2)]
    for user in users:
        user.lease(CPU)
    arena = users[0].arena
    assert arena is not None and users[1].arena is arena
    users[0].release()
    arena.lease()
    users[1].release()
    with pytest.raises(ArenaError, match="closed"):
        arena.lease()


@pytest.mark.parametrize("device, has_streams", [("cpu", False), ("cuda", True), ("xpu", True)])
def test_work_is_ordered_where_a_device_has_streams(device: str, has_streams: bool) -> None:
    arena = Mock(device=torch.device(device))
    leased = LeasedArena(Mock(take=Mock(return_value=arena)))
    lease = leased.lease(arena.device)
    leased.acquire()
    leased.mark()
    assert (lease.acquire.called, lease.mark.called) == (has_streams, has_streams)
