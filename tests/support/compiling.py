"""Count the graphs that `torch.compile` makes, and compile blocks in the ways of users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters


class Counter:
    """A backend that counts graphs; making one resets dynamo."""

    def __init__(self, backend: str = "eager") -> None:
        torch._dynamo.reset()
        counters.clear()
        self.backend = CompileCounterWithBackend(backend)

    @property
    def graphs(self) -> tuple[int, int]:
        """Return the number of compiled graphs, and of the operations in them."""
        return self.backend.frame_count, self.backend.op_count

    @property
    def breaks(self) -> dict[str, int]:
        """Return the number of graph breaks for each reason."""
        return dict(counters["graph_break"])

    @property
    def inductor_misses(self) -> int:
        """Return the number of graphs that inductor did not find in its cache."""
        return int(counters["inductor"]["fxgraph_cache_miss"])


def by_call(blocks: nn.ModuleList, **options: Any) -> None:
    """Compile as `compile_repeated_blocks` does, which only some classes of diffusers have."""
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
    """Raise RecompileError if compiled code does not fit a call."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def assert_same_bits(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)
