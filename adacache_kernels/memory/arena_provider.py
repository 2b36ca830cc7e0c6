"""Where the caches of one pipeline have their arena from."""

from __future__ import annotations

import torch

from .arena import CacheArena


class ArenaProvider:
    """An arena that was given, or one made when it is first needed and closed with its last user.

    Args:
        max_bytes: budget of one that is made, as `CacheArena` takes it; None: what the device has.
        given: an arena that others may use as well; None to make one.
    """

    def __init__(
        self, max_bytes: int | float | str | None = None, given: CacheArena | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self._given = given
        self._made: dict[torch.device, CacheArena] = {}
        self._users: dict[torch.device, int] = {}

    def take(self, device: torch.device) -> CacheArena:
        """The arena on a device, for one more user.

        Raises:
            ValueError: the one that was given is on another device.
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
        """One user less."""
        if arena is self._given:
            return
        device = next(device for device, made in self._made.items() if made is arena)
        self._users[device] -= 1
        if self._users[device] == 0:
            self._made.pop(device).close()
