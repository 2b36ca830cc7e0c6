"""Make this process one of several ranks that do not exist.

The backend communicates with nobody, so a test of messages needs no other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def fake_world(size: int) -> Iterator[Any]:
    """Make this process rank 0 of `size` ranks; the value is their process group."""
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()
