"""Stand-ins: objects that replace a block, or a module of a block, during one forward call.

The lists, the blocks and their forwards stay untouched, so `state_dict`, compiled blocks and hooks
of other libraries work as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .adapter import BlockList, Stream
from .block_calls import Parameters
from .other_libraries.split_hooks import split_arguments

Streams = list[Tensor | None]
"""The streams of one block, None for a stream that the call does not have."""


class StandIn:
    """A callable that replaces a module.

    Args:
        module: the module. All attributes are read from it.
        handle: receives the calls.
    """

    def __init__(self, module: nn.Module, handle: Callable[..., Any]) -> None:
        self._module = module
        self._handle = handle

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `handle` returns for this call."""
        return self._handle(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Models read attributes of their blocks, for example `transformer_blocks[0].norm1`.
        return getattr(self._module, name)


@dataclass
class BlockCall:
    """One call of a block.

    Args:
        block: the block.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        arguments: all arguments by name, split as this rank's blocks get them.
    """

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]

    def run(self) -> Any:
        """Run the block and return its output."""
        return self.block(*self.args, **self.kwargs)

    def values(self, streams: Iterable[Stream]) -> Streams:
        """Return the arguments that hold these streams."""
        return [self.arguments.get(stream.parameter) for stream in streams]

    def output(self, blocks: BlockList, streams: Sequence[Tensor | None]) -> Any:
        """Return an output in the form in which the blocks of `blocks` return theirs.

        Args:
            blocks: the list of the block.
            streams: the values of its streams. What a block passes on unchanged is taken from the
                arguments.
        """
        values = [*streams, *self.values(blocks.passed)]
        indices = [stream.output for stream in (*blocks.streams, *blocks.passed)]
        by_index = {i: x for i, x in zip(indices, values, strict=True) if i is not None}
        if not by_index:
            return values[0]
        count = max(blocks.output_length, max(by_index) + 1)
        return tuple(by_index.get(index) for index in range(count))


def block_stand_in(
    block: nn.Module, parameters: Parameters, handle: Callable[[BlockCall], Any]
) -> StandIn:
    """Return a stand-in for `block` that gives its calls to `handle`.

    Args:
        block: the block.
        parameters: those of its forward.
        handle: returns the output of a call.
    """

    def bound(*args: Any, **kwargs: Any) -> Any:
        arguments = parameters.bind(*split_arguments(block, args, kwargs))
        return handle(BlockCall(block, args, kwargs, arguments))

    return StandIn(block, bound)
