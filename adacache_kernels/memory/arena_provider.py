"""The arenas of one patched pipeline, and the part of one that a single model uses."""

from __future__ import annotations

import os
from typing import Protocol

import torch

from .arena import CacheArena, Lease
from .errors import ArenaError

FORKED = (
    "the stored residuals belong to the process that made them, and this is a fork of that one: "
    "patch the model in the process that generates, or start that process by spawn"
)


class Holder(Protocol):
    """An owner of memory of an arena that can release a part of it."""

    def reclaim(self) -> bool:
        """Release the memory that was used longest ago; return False if there is none."""


class ArenaProvider:
    """The arena of the user, or one for each device that lives as long as it has users.

    Args:
        max_bytes: budget of an arena that is made here, as `CacheArena` takes it.
        given: arena of the user; None to make one at its first use.
    """

    def __init__(
        self, max_bytes: int | float | str | None = None, given: CacheArena | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self._given = given
        self._made: dict[torch.device, CacheArena] = {}
        self._users: dict[torch.device, int] = {}
        self._holders: list[Holder] = []

    def add_holder(self, holder: Holder) -> None:
        """Add an owner that is asked to release memory if a plan does not fit."""
        self._holders.append(holder)

    def reclaim(self) -> bool:
        """Release the memory of a generation that is not running; return False if there is none."""
        return any(holder.reclaim() for holder in self._holders)

    def take(self, device: torch.device) -> CacheArena:
        """Return the arena on a device, and count one more user.

        Raises:
            ValueError: the arena of the user is on another device.
        """
        if self._given is not None:
            if self._given.device != device:
                raise ValueError(
                    f"arena is on {self._given.device}, but the model runs on {device}; give "
                    "patch() an arena on its device"
                )
            return self._given
        if device not in self._made:
            self._made[device] = CacheArena(device, self.max_bytes)
        self._users[device] = self._users.get(device, 0) + 1
        return self._made[device]

    def give_back(self, arena: CacheArena) -> None:
        """Count one user less; close an arena that was made here and has no user."""
        if arena is self._given:
            return
        device = next(device for device, made in self._made.items() if made is arena)
        self._users[device] -= 1
        if self._users[device] == 0:
            self._made.pop(device).close()


class LeasedArena:
    """An arena and a lease of it for one model, on one device at a time.

    Args:
        provider: the source of the arena.
    """

    def __init__(self, provider: ArenaProvider) -> None:
        self._provider = provider
        self._lease: Lease | None = None
        self._process = 0
        """The process that made the lease."""
        self.arena: CacheArena | None = None

    def is_elsewhere(self, device: torch.device) -> bool:
        """Return True if there is an arena and it is on another device."""
        return self.arena is not None and self.arena.device != device

    def lease(self, device: torch.device) -> Lease:
        """Return the lease on a device, which is made at its first use.

        Raises:
            ArenaError: the arena is closed, or the device cannot be used.
            ValueError: the arena of the user is on another device.
        """
        if self.arena is None:
            self.arena = self._provider.take(device)
        if self._lease is None:
            self._lease = self.arena.lease()
            self._process = os.getpid()
        return self._lease

    def reclaim(self) -> bool:
        """Release the memory of another generation; return False if there is none."""
        return self._provider.reclaim()

    def acquire(self) -> None:
        """Make the current stream wait for earlier work on the slots.

        Raises:
            ArenaError: this process is a fork of the one that made the lease.
        """
        if self._lease is None:
            return
        if os.getpid() != self._process:
            raise ArenaError(FORKED)
        if self._has_streams:
            self._lease.acquire()

    def mark(self) -> None:
        """Record the work on the slots that was launched on the current stream."""
        if self._lease is not None and self._has_streams:
            self._lease.mark()

    def release(self) -> None:
        """Give the lease and the arena back."""
        if self._lease is not None:
            self._lease.release()
        if self.arena is not None:
            self._provider.give_back(self.arena)
        self._lease = self.arena = None

    @property
    def _has_streams(self) -> bool:
        # A CPU has no streams, and a call of the arena took 0.02 ms, three times a step.
        return self.arena is not None and self.arena.device.type != "cpu"
