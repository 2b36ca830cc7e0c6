"""What a generation costs: seconds, floating-point operations, memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@contextmanager
def timed_forwards(transformer: nn.Module) -> Iterator[list[float]]:
    """Collects the wall time of every forward, with the device idle at both ends."""
    seconds: list[float] = []
    starts: list[float] = []

    def begin(module: nn.Module, *_: Any) -> None:
        _wait(module)
        starts.append(time.perf_counter())

    def end(module: nn.Module, *_: Any) -> None:
        _wait(module)
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


@dataclass
class Work:
    """Floating-point operations of every forward of a transformer, in the order of the calls."""

    flops: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.flops)


@contextmanager
def counted_flops(transformer: nn.Module) -> Iterator[Work]:
    """Counts matrix products, convolutions and attention, by torch's flop counter.

    A multiplication and an addition are two. Counting slows a forward down, so that it is not to be
    timed. Operations of custom kernels, all element by element here, count as none.
    """
    from torch.utils.flop_counter import FlopCounterMode

    work = Work()
    counters: list[Any] = []

    def begin(*_: Any) -> None:
        counters.append(FlopCounterMode(display=False, custom_mapping=_attention_on_cpu()))
        counters[-1].__enter__()

    def end(*_: Any) -> None:
        counter = counters.pop()
        counter.__exit__(None, None, None)
        work.flops.append(counter.get_total_flops())

    handles = [
        transformer.register_forward_pre_hook(begin),
        transformer.register_forward_hook(end),
    ]
    try:
        yield work
    finally:
        while counters:
            counters.pop().__exit__(None, None, None)
        for handle in handles:
            handle.remove()


def reset_peak_memory(device: torch.device) -> None:
    """The next `peak_memory` counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Most bytes that torch had allocated on a CUDA device; None elsewhere, where it counts none.

    The cache arena of this package has memory of its own beside that: add its bytes.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _attention_on_cpu() -> dict[Any, Any]:
    # The flop counter of torch 2.13 knows the attention kernels of GPUs only.
    from torch.utils.flop_counter import sdpa_flop_count

    def count(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # shapes
        counted: Any = sdpa_flop_count
        flops: int = counted(query, key, value)
        return flops

    operation = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return {} if operation is None else {operation: count}


def _wait(module: nn.Module) -> None:
    if next(module.parameters()).is_cuda:
        torch.cuda.synchronize()
