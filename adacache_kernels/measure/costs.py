"""The costs of a generation: floating-point operations, host reads, memory."""

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
"""Operations whose result the host needs."""


@dataclass
class Work:
    """The work of a transformer.

    Args:
        flops: floating-point operations of each forward call, in order.
        reads: host reads in all forward calls, see `ReadCounter`.
    """

    flops: list[int] = field(default_factory=list)
    reads: int = 0

    @property
    def total(self) -> int:
        """Return the floating-point operations of all forward calls."""
        return sum(self.flops)


@contextmanager
def counted_work(transformer: nn.Module) -> Iterator[Work]:
    """Count the operations and host reads of every forward call inside of the context.

    torch's flop counter counts matrix products, convolutions and attention; a multiplication and an
    addition are two operations. Custom kernels, which are all elementwise here, count as none.
    Counting slows a forward call down, so do not time it.
    """
    work = Work()
    running: list[tuple[Any, ReadCounter]] = []

    def begin(*_: Any) -> None:
        counters = _flop_counter(), ReadCounter()
        running.append(counters)
        for counter in counters:
            counter.__enter__()

    def stop() -> tuple[Any, ReadCounter]:
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
    # torch's tracker searches the parents of every module. The search never ends with cache-dit,
    # which makes the transformer a child of the stand-in of its own blocks.
    counter.mod_tracker = _OneModuleTracker()
    return counter


class _OneModuleTracker:
    """A replacement of torch's `ModuleTracker` that assigns all operations to one module."""

    def __init__(self) -> None:
        self.parents = {"Global"}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


class ReadCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A counter of the operations for whose result the host waits if the tensor is on a GPU.

    It does not count `tolist` on a CPU, nor reads inside of compiled code.
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
    """The most bytes of tensors that were alive at the beginning of a forward call."""

    bytes: int = 0


@contextmanager
def held_tensors(transformer: nn.Module) -> Iterator[PeakHeldBytes]:
    """Count the bytes of tensors, allocated inside of the context, that live between forward calls.

    The pipeline's own latents are among them: subtract the bytes of a run without a cache. Each
    storage counts once, and as a whole if any view of it lives. Counting is slow.
    """
    held = PeakHeldBytes()

    def count(*_: Any) -> None:
        held.bytes = max(held.bytes, _live_bytes())

    # Freezing hides the objects that exist already from `gc.get_objects`.
    gc.collect()
    gc.freeze()
    handle = transformer.register_forward_pre_hook(count)
    try:
        yield held
    finally:
        handle.remove()
        gc.unfreeze()


def _live_bytes() -> int:
    gc.collect()
    tensors = (each for each in gc.get_objects() if issubclass(type(each), Tensor))
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.nbytes()}.values())


def reset_peak_memory(device: torch.device) -> None:
    """Restart the count of `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that torch had allocated on a CUDA device; None on other devices.

    The cache arena of this package is not part of torch's memory: add its bytes.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _attention_on_cpu() -> dict[Any, Any]:
    # The flop counter of torch 2.13 knows only the attention kernels of GPUs.
    from torch.utils.flop_counter import sdpa_flop_count

    def count(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        counted: Any = sdpa_flop_count
        flops: int = counted(query, key, value)
        return flops

    operation = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return {} if operation is None else {operation: count}
