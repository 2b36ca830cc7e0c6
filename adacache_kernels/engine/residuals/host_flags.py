"""Bring a few flags from the device to the host, without a wait where they have time to arrive."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class HostFlags:
    """Flags on their way from a device to the host.

    Args:
        flags: bool `[n]`, on the device whose present work they follow.
    """

    def __init__(self, flags: Tensor) -> None:
        self._device = flags.device
        self._event = None
        if self._device.type in ("cpu", "mps"):
            self._flags = flags
            return
        module = torch.get_device_module(self._device)
        self._flags = torch.empty(flags.shape, dtype=flags.dtype, device="cpu", pin_memory=True)
        self._flags.copy_(flags, non_blocking=True)
        self._event = module.Event()
        self._event.record(module.current_stream(self._device))

    @property
    def have_arrived(self) -> bool:
        """Return True if the host can read them without a wait."""
        if self._event is None:
            return self._device.type == "cpu"
        return bool(self._event.query())

    def read(self) -> tuple[list[bool], float]:
        """Return the flags, and the seconds for which the host waited for them."""
        if self.have_arrived:
            return self._values(), 0.0
        begun = time.perf_counter()
        if self._event is not None:
            self._event.synchronize()
        values = self._values()
        return values, time.perf_counter() - begun

    def _values(self) -> list[bool]:
        return [bool(flag) for flag in self._flags.tolist()]
