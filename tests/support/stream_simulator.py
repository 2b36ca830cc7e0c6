"""Simulate a device and a copy engine that run side by side, to test their waits.

Work and copies are only recorded. `run` then executes them in a random order among all orders that
the waits allow. If a test passes for every order, no wait is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from adacache_kernels import ops


class TwoQueues:
    """The two queues. They replace the copy stream and the `ops` that `HostSlots` uses."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._queues: dict[str, list[Callable[[], None] | tuple[str, int]]] = {
            "work": [],
            "copies": [],
        }
        self._done = {"work": 0, "copies": 0}
        self.ops = SimpleNamespace(
            distance_update=self._distance_update, conditional_add=self._conditional_add
        )

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self._queues["copies"].append(lambda: target.copy_(source))

    def after_copies(self) -> tuple[str, int]:
        return "copies", len(self._queues["copies"])

    def after_work(self) -> tuple[str, int]:
        return "work", len(self._queues["work"])

    def work_waits(self, event: tuple[str, int]) -> None:
        self._queues["work"].append(event)

    def copies_wait(self, event: tuple[str, int]) -> None:
        self._queues["copies"].append(event)

    def run(self) -> None:
        """Execute everything that was recorded."""
        while True:
            ready = [name for name in self._queues if self._is_ready(name)]
            if not ready:
                break
            name = self._random.choice(ready)
            entry = self._queues[name][self._done[name]]
            self._done[name] += 1
            if callable(entry):
                entry()
        assert all(self._done[name] == len(queue) for name, queue in self._queues.items())

    def _is_ready(self, name: str) -> bool:
        if self._done[name] == len(self._queues[name]):
            return False
        entry = self._queues[name][self._done[name]]
        return callable(entry) or self._done[entry[0]] >= entry[1]

    def _distance_update(self, slot: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sums = torch.zeros(slot.shape[0], 1, 3 + 2 * len(args[4]))
        self._queues["work"].append(
            lambda: sums.copy_(ops.distance_update(slot, *args, **kwargs).sum(1, keepdim=True))
        )
        return sums

    def _conditional_add(self, *args: Any) -> None:
        self._queues["work"].append(lambda: ops.conditional_add(*args))
