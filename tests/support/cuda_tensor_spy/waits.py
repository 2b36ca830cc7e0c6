"""Record where the host waits for the device: the line of Python that made it wait."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

import adacache_kernels

PACKAGE = str(Path(adacache_kernels.__file__).parent)
TORCH = str(Path(torch.__file__).parent)
HERE = str(Path(__file__).parent)
_listeners: list[list[Wait]] = []


@dataclass(frozen=True)
class Wait:
    """A point at which the host waited for the device, or would have waited.

    Args:
        what: the operation.
        file: the nearest file of the call stack that is not torch's own.
        line: the line in that file.
    """

    what: str
    file: str
    line: int

    @property
    def is_ours(self) -> bool:
        """Return True if this package made the call."""
        return self.file.startswith(PACKAGE)

    def is_in(self, package: str) -> bool:
        """Return True if an installed package of that name made the call."""
        return f"/site-packages/{package}/" in self.file

    def __str__(self) -> str:
        return f"{self.what} at {self.file}:{self.line}"


def listen(waits: list[Wait]) -> None:
    """Record waits in this list as well, from now on."""
    _listeners.append(waits)


def stop_listening(waits: list[Wait]) -> None:
    """Stop recording waits in this list."""
    _listeners[:] = [other for other in _listeners if other is not waits]


def note(what: str) -> None:
    """Record a wait of the host in all lists."""
    file, line = _caller(sys._getframe(1))
    for waits in _listeners:
        waits.append(Wait(what, file, line))


def lines(waits: Sequence[Wait]) -> set[tuple[str, int]]:
    """Return file and line of the waits, each once."""
    return {(wait.file, wait.line) for wait in waits}


def _caller(frame: FrameType | None) -> tuple[str, int]:
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((TORCH, HERE, "<")) and "/contextlib.py" not in file:
            return file, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 0
