"""What a generation costs: seconds, floating-point operations, reads of the host, memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
)
"""Operations whose result the host has to know."""


@dataclass
class Work:
    """Floating-point operations of every forward of a transformer, in the order of the calls, and
    reads of the host, see `CountedReads`."""

    flops: list[int] = field(default_factory=list)
    reads: int = 0

    @property
    def total(self) -> int:
        return sum(self.flops)


@contextmanager
def counted_work(transformer: nn.Module) -> Iterator[Work]:
    """Counts matrix products, convolutions and attention, by torch's flop counter, and reads.

    A multiplication and an addition are two. Counting slows a forward down, so that it is not to be
    timed. Operations of custom kernels, all element by element here, count as none.
    """
    work = Work()
    running: list[tuple[Any, CountedReads]] = []

    def begin(*_: Any) -> None:
        counters = _flop_counter(), CountedReads()
        running.append(counters)
        for counter in counters:
            counter.__enter__()

    def stop() -> tuple[Any, CountedReads]:
        counters = running.pop()
        for counter in reversed(counters):
            counter.__exit__(None, None, None)
        return counters

    def end(*_: Any) -> None:
        flops, reads = stop()
        work.flops.append(flops.get_total_flops())
        work.reads += reads.count

    handles = [
        transformer.register_forward_pre_hook(begin),
        transformer.register_forward_hook(end),
    ]
    try:
        yield work
    finally:
        while running:
            stop()
        for handle in handles:
            handle.remove()


def _flop_counter() -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    counter: Any = FlopCounterMode(display=False, custom_mapping=_attention_on_cpu())
    # Its own looks for every module's parents, without end where cache-dit makes the transformer a
    # child of what stands for its blocks.
    counter.mod_tracker = _OneModule()
    return counter


class _OneModule:
    """In place of a `ModuleTracker`: all operations are of one module."""

    def __init__(self) -> None:
        self.parents = {"Global"}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


class CountedReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations for whose result the host waits if the tensor is on a GPU.

    On a CPU, `tolist` is none of them, and what compiled code reads by itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        op: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.count += op in READS
        return op(*args, **(kwargs or {}))


@dataclass
class PeakHeldBytes:
    """Most bytes of tensors that were alive at the beginning of a forward."""

    bytes: int = 0


@contextmanager
def held_tensors(transformer: nn.Module) -> Iterator[PeakHeldBytes]:
    """Counts tensors that were made inside and live when a forward begins: what lives from one
    forward to the next, the pipeline's own latents among it. Take those of a run without a cache
    off. Storages count once, and as a whole where a view of them lives. Slow.
    """
    held = PeakHeldBytes()

    def look(*_: Any) -> None:
        held.bytes = max(held.bytes, _alive())

    # Frozen objects are not listed: those that were there before.
    gc.collect()
    gc.freeze()
    handle = transformer.register_forward_pre_hook(look)
    try:
        yield held
    finally:
        handle.remove()
        gc.unfreeze()


def _alive() -> int:
    gc.collect()
    found = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
    storages = (tensor.untyped_storage() for tensor in found)
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.nbytes()}.values())


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
