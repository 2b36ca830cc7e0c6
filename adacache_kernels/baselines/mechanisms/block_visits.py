"""Number all blocks of a model, and let a visitor decide on each call whether the block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...models import Adapter, BlockList
from ...models.block_calls import Parameters, shadowed
from ...models.block_stand_in import BlockCall, Streams, block_stand_in
from .mechanism import Video

Key = tuple[str, int]
"""Attribute of a block list, and index of a block in it."""


@dataclass(frozen=True, eq=False)
class NumberedBlock:
    """One block of a model.

    Args:
        module: the block.
        blocks: its list, or the part of a list that it is in.
        key: attribute of the list and index of the block in it.
        chain: number of its chain. Between the blocks of a chain, the model only changes layouts.
        number: number of the block over all lists. Two blocks of interleaved lists share one.
        parameters: those of its forward.
    """

    module: nn.Module
    blocks: BlockList
    key: Key
    chain: int
    number: int
    parameters: Parameters

    def entering(self, call: BlockCall) -> Streams:
        """Return the streams that enter the block."""
        return call.values(self.blocks.streams)

    def leaving(self, output: Any) -> Streams:
        """Return the streams in the block's output."""
        return [stream.value(output) for stream in self.blocks.streams]


Visit = Callable[[NumberedBlock, BlockCall], Any]
"""Returns the output of one call of a block, with or without running the block."""


def numbered_blocks(model: nn.Module, adapter: Adapter) -> list[NumberedBlock]:
    """Return all blocks of the model, list by list."""
    result: list[NumberedBlock] = []
    chain, first_number = 0, 0
    for blocks in adapter.lists:
        modules = blocks.modules(model)
        parameters = Parameters(next(iter(modules.values())))
        for number, (index, module) in enumerate(modules.items(), start=first_number):
            key = (blocks.attribute, index)
            result.append(NumberedBlock(module, blocks, key, chain, number, parameters))
        if not blocks.interleaved_with_next:
            chain += 1
            first_number += len(modules)
    return result


def visited(
    model: nn.Module, blocks: Iterable[NumberedBlock], visit: Visit
) -> AbstractContextManager[None]:
    """Return a context in which `visit` receives every call of a block."""
    lists: dict[str, list[Any]] = {}
    for block in blocks:
        attribute, index = block.key
        whole_list = lists.setdefault(attribute, list(getattr(model, attribute)))
        whole_list[index] = block_stand_in(block.module, block.parameters, partial(visit, block))
    return shadowed(model, {name: tuple(whole_list) for name, whole_list in lists.items()})


def residual_between(
    first: NumberedBlock,
    x_in: Tensor | None,
    last: NumberedBlock,
    x_out: Tensor | None,
    stream: int,
    video: Video,
) -> Tensor | None:
    """Return x_out - x_in, in four dimensions if the layouts of the two blocks differ.

    Args:
        first: the block that `x_in` enters.
        x_in: a stream, None if the call does not have it.
        last: the block that `x_out` leaves.
        x_out: the same stream after it.
        stream: index of the stream.
        video: videos and frames of the call.
    """
    if x_in is None or x_out is None:
        return None
    if not _changes_layout(first, last, stream):
        return x_out - x_in
    before = first.blocks.split(x_in, stream, video)
    return last.blocks.split(x_out, stream, video) - before


def added(
    first: NumberedBlock,
    x_in: Tensor,
    last: NumberedBlock,
    like: Tensor,
    residual: Tensor,
    stream: int,
    video: Video,
) -> Tensor:
    """Return x_in + residual in the layout of `like`, the input of the block `last`."""
    if not _changes_layout(first, last, stream):
        return x_in + residual
    out = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    split = last.blocks.split(out, stream, video)
    torch.add(first.blocks.split(x_in, stream, video), residual, out=split)
    return out


def _changes_layout(first: NumberedBlock, last: NumberedBlock, stream: int) -> bool:
    return stream == 0 and first.blocks.layout is not last.blocks.layout
