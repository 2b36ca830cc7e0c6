"""Where the host waits for the device, by the line of Python that made it wait."""

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
    """One time that the host waited for the device, or would have.

    Args:
        what: the operation.
        file: of the code that called it: the nearest one that is not torch's own.
        line: there.
    """

    what: str
    file: str
    line: int

    @property
    def is_ours(self) -> bool:
        """Whether this package asked for it."""
        return self.file.startswith(PACKAGE)

    def is_in(self, package: str) -> bool:
        """Whether the code is that of an installed package."""
        return f"/site-packages/{package}/" in self.file

    def __str__(self) -> str:
        return f"{self.what} at {self.file}:{self.line}"


def listen(waits: list[Wait]) -> None:
    """From now on, waits are noted in this list as well."""
    _listeners.append(waits)


def stop_listening(waits: list[Wait]) -> None:
    """Waits are no longer noted in this list."""
    _listeners[:] = [other for other in _listeners if other is not waits]


def note(what: str) -> None:
    """The host waits: tell whoever listens."""
    file, line = _caller(sys._getframe(1))
    for waits in _listeners:
        waits.append(Wait(what, file, line))


def lines(waits: Sequence[Wait]) -> set[tuple[str, int]]:
    """The places in the code, each once."""
    return {(wait.file, wait.line) for wait in waits}


def _caller(frame: FrameType | None) -> tuple[str, int]:
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((TORCH, HERE, "<")) and "/contextlib.py" not in file:
            return file, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 0
