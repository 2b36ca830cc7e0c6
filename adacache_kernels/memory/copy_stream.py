"""Copies between host and device that run beside the model's own work."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class CopyStream(Protocol):
    """A queue of copies. It and the model's queue run side by side, but for the waits."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Put a copy into the queue."""

    def after_copies(self) -> Any:
        """An event: all copies put into the queue so far are done."""

    def after_work(self) -> Any:
        """An event: all work that the model has launched so far is done."""

    def work_waits(self, event: Any) -> None:
        """What the model launches from now on comes after the event."""

    def copies_wait(self, event: Any) -> None:
        """Copies that are put into the queue from now on come after the event."""


class StreamCopies:
    """On a CUDA device: a stream of its own, and events; the host waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def after_copies(self) -> Any:
        return self._stream.record_event()

    def after_work(self) -> Any:
        return torch.cuda.current_stream(self._device).record_event()

    def work_waits(self, event: Any) -> None:
        torch.cuda.current_stream(self._device).wait_event(event)

    def copies_wait(self, event: Any) -> None:
        self._stream.wait_event(event)


class DirectCopies:
    """Where there is no second queue: every copy is done when it is asked for."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source)

    def after_copies(self) -> None:
        """It is now."""

    def after_work(self) -> None:
        """It is now."""

    def work_waits(self, event: Any) -> None:
        """There is nothing to wait for."""

    def copies_wait(self, event: Any) -> None:
        """There is nothing to wait for."""


def transfer_for(device: torch.device) -> CopyStream:
    """The fastest that the device has."""
    return StreamCopies(device) if device.type == "cuda" else DirectCopies()
