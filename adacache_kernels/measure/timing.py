"""Wall time of a module's forward calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def timed_forwards(transformer: nn.Module) -> Iterator[list[float]]:
    """Yield a list that receives the wall time of every forward call, in seconds.

    The device is synchronized before and after each call.
    """
    seconds: list[float] = []
    starts: list[float] = []

    def begin(module: nn.Module, *_: Any) -> None:
        _synchronize(module)
        starts.append(time.perf_counter())

    def end(module: nn.Module, *_: Any) -> None:
        _synchronize(module)
        seconds.append(time.perf_counter() - starts.pop())

    handles = [
        transformer.register_forward_pre_hook(begin),
        transformer.register_forward_hook(end),
    ]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def _synchronize(module: nn.Module) -> None:
    if next(module.parameters()).is_cuda:
        torch.cuda.synchronize()
