"""Counts what `torch.compile` makes of blocks, and the ways in which users compile them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters


class Counter:
    """A backend that counts, from a fresh start of dynamo on."""

    def __init__(self, backend: str = "eager") -> None:
        torch._dynamo.reset()
        counters.clear()
        self.backend = CompileCounterWithBackend(backend)

    @property
    def graphs(self) -> tuple[int, int]:
        """Compiled graphs, and the operations in them."""
        return self.backend.frame_count, self.backend.op_count

    @property
    def breaks(self) -> dict[str, int]:
        """Graph breaks by reason."""
        return dict(counters["graph_break"])

    @property
    def inductor_misses(self) -> int:
        """Graphs that inductor had to compile, for it knew no such graph."""
        return int(counters["inductor"]["fxgraph_cache_miss"])


def by_call(blocks: nn.ModuleList, **options: Any) -> None:
    """As `compile_repeated_blocks` does, which only some classes of diffusers have."""
    for block in blocks:
        block.compile(**options)


def by_wrapper(blocks: nn.ModuleList, **options: Any) -> None:
    for index, block in enumerate(blocks):
        blocks[index] = torch.compile(block, **options)  # type: ignore[assignment]


def by_forward(blocks: nn.ModuleList, **options: Any) -> None:
    for block in blocks:
        block.forward = torch.compile(block.forward, **options)


WAYS: dict[str, Callable[..., None]] = {
    "block.compile()": by_call,
    "torch.compile(block)": by_wrapper,
    "torch.compile(block.forward)": by_forward,
}


@contextmanager
def no_recompiles() -> Iterator[None]:
    """Where code that was compiled before does not hold for a call, that raises RecompileError."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def assert_same_bits(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)
