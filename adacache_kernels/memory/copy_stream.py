"""Copies between host and device that run beside the model's own work."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class CopyStream(Protocol):
    """A queue of copies. It runs beside the model's queue, except for the waits."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy of `source` into `target`: uint8 [n] both."""

    def after_copies(self) -> Any:
        """Return an event that occurs when all copies queued so far are done."""

    def after_work(self) -> Any:
        """Return an event that occurs when all work launched by the model so far is done."""

    def work_waits(self, event: Any) -> None:
        """Make the work that the model launches from now on wait for the event."""

    def copies_wait(self, event: Any) -> None:
        """Make the copies that are queued from now on wait for the event."""


class StreamCopies:
    """Copies on a CUDA stream of their own, ordered by events. The host never waits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy on the copy stream."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def after_copies(self) -> Any:
        """Record an event on the copy stream."""
        return self._stream.record_event()

    def after_work(self) -> Any:
        """Record an event on the current stream."""
        return torch.cuda.current_stream(self._device).record_event()

    def work_waits(self, event: Any) -> None:
        """Make the current stream wait for the event."""
        torch.cuda.current_stream(self._device).wait_event(event)

    def copies_wait(self, event: Any) -> None:
        """Make the copy stream wait for the event."""
        self._stream.wait_event(event)


class DirectCopies:
    """Copies of a device without a second queue. A copy is done when `copy` returns."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy at once."""
        target.copy_(source)

    def after_copies(self) -> None:
        """Return no event: all copies are done."""

    def after_work(self) -> None:
        """Return no event: copies and work share one queue."""

    def work_waits(self, event: Any) -> None:
        """Do nothing: copies and work share one queue."""

    def copies_wait(self, event: Any) -> None:
        """Do nothing: copies and work share one queue."""


def make_copy_stream(device: torch.device) -> CopyStream:
    """Return the fastest kind of copies that the device supports."""
    return StreamCopies(device) if device.type == "cuda" else DirectCopies()
