"""Every block of a model, each with a stand-in that lets a visitor choose whether it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...models import Adapter, BlockList
from ...models.block_calls import Parameters, shadowed

Key = tuple[str, int]
Streams = list[Tensor | None]
Visit = Callable[["BlockVisit", tuple[Any, ...], Mapping[str, Any]], Any]


class BlockVisit:
    """One block and where it is.

    Args:
        block: the block.
        blocks: the list, or the part of it, that it is in.
        key: attribute of the list and index in it.
        segment: number of the chain of blocks that it is in: what stands between the blocks of a
            chain is a change of layout at most.
        number: counted over all lists; the two of lists that take turns share one.
    """

    def __init__(
        self,
        block: nn.Module,
        blocks: BlockList,
        key: Key,
        segment: int,
        number: int,
        parameters: Parameters,
    ) -> None:
        self.block, self.blocks, self.key = block, blocks, key
        self.segment, self.number = segment, number
        self._parameters = parameters

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the block."""
        return self.block(*args, **kwargs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The block's arguments by name."""
        return self._parameters.bind(args, kwargs)

    def entering(self, arguments: Mapping[str, Any]) -> Streams:
        """The streams that the block is given."""
        return [arguments.get(stream.parameter) for stream in self.blocks.streams]

    def leaving(self, output: Any) -> Streams:
        """The streams in what it returned."""
        return [stream.value(output) for stream in self.blocks.streams]

    def returning(self, arguments: Mapping[str, Any], streams: Streams) -> Any:
        """What the block would return with these streams; what it passes is as it was given."""
        passed = [arguments.get(stream.parameter) for stream in self.blocks.passed]
        leaving = (*self.blocks.streams, *self.blocks.passed)
        values = [*streams, *passed]
        places = [stream.output for stream in leaving if stream.output is not None]
        if not places:
            return values[0]
        by_place = dict(zip(places, values, strict=True))
        count = max(self.blocks.output_length, max(by_place) + 1)
        return tuple(by_place.get(place) for place in range(count))


def places_of(model: nn.Module, adapter: Adapter) -> list[BlockVisit]:
    """Every block of the model, list by list."""
    found: list[BlockVisit] = []
    segment, first_number = 0, 0
    for blocks in adapter.lists:
        modules = blocks.modules(model)
        parameters = Parameters(next(iter(modules.values())))
        for offset, (index, block) in enumerate(modules.items()):
            key, number = (blocks.attribute, index), first_number + offset
            found.append(BlockVisit(block, blocks, key, segment, number, parameters))
        if not blocks.interleaved_with_next:
            segment += 1
            first_number += len(modules)
    return found


class StandIn:
    """Stands for one block during one forward."""

    def __init__(self, place: BlockVisit, visit: Visit) -> None:
        self._place = place
        self._visit = visit

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._visit(self._place, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Models look at their blocks' attributes, `transformer_blocks[0].norm1` for example.
        return getattr(self._place.block, name)


def visited(model: nn.Module, places: Iterable[BlockVisit], visit: Visit) -> Any:
    """A context in which `visit` is called in place of every block."""
    lists: dict[str, list[Any]] = {}
    for place in places:
        attribute, index = place.key
        standing = lists.setdefault(attribute, list(getattr(model, attribute)))
        standing[index] = StandIn(place, visit)
    return shadowed(model, {name: tuple(standing) for name, standing in lists.items()})


def difference(
    first: BlockVisit,
    x_in: Tensor,
    last: BlockVisit,
    x_out: Tensor,
    stream: int,
    video: tuple[int, int],
) -> Tensor:
    """x_out - x_in, in four dimensions where the layouts of the two differ."""
    if not _changes_layout(first, last, stream):
        return x_out - x_in
    before = first.blocks.split(x_in, stream, video)
    return last.blocks.split(x_out, stream, video) - before


def added(
    first: BlockVisit,
    x_in: Tensor,
    last: BlockVisit,
    like: Tensor,
    residual: Tensor,
    stream: int,
    video: tuple[int, int],
) -> Tensor:
    """x_in + residual, in the layout of `like`, which is what the last block was given."""
    if not _changes_layout(first, last, stream):
        return x_in + residual
    out = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    split = last.blocks.split(out, stream, video)
    torch.add(first.blocks.split(x_in, stream, video), residual, out=split)
    return out


def _changes_layout(first: BlockVisit, last: BlockVisit, stream: int) -> bool:
    return stream == 0 and first.blocks.layout is not last.blocks.layout
