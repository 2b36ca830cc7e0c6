"""Observers that look for writes between blocks and in metric blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from ...models import BlockList, BlockRun, Stream
from .block_stand_ins import Observer
from .write_check import Trace, Write, WriteCheck

SplitStream = Callable[[BlockList, int, Tensor], Tensor]
"""From a block list, the index of a stream and the stream to a view that all lists share."""


def keep(run: BlockRun, streams: Iterable[Stream]) -> None:
    """Give the observers of a block copies of streams, before it runs; the block gets its own."""
    given = {stream.parameter: run.arguments.get(stream.parameter) for stream in streams}
    copies = {name: x.clone() for name, x in given.items() if x is not None}
    run.arguments = {**run.arguments, **copies}


class HandOver:
    """The way of the streams from each block of a span to the next one, in one recorded call.

    Args:
        check: receives the comparisons.
        split: the view in which the streams of two interleaved lists are compared; None: as they
            are.
    """

    def __init__(self, check: WriteCheck, split: SplitStream | None = None) -> None:
        self._check = check
        self._split = split
        self._left: Sequence[Trace | None] = ()
        self._last: tuple[BlockList, int] | None = None

    def observer(self, blocks: BlockList, index: int, *, compares: bool = True) -> Observer:
        """Return the observer of one block.

        Args:
            blocks: the list of the block.
            index: its index in the whole list.
            compares: False if the model may change what enters this block.
        """
        return _BlockHandOver(self, blocks, index, compares)

    def enter(self, run: BlockRun, blocks: BlockList, *, compares: bool) -> None:
        """Compare what enters a block with what left the block before it."""
        left, self._left = self._left, ()
        if self._last is None or not compares:
            return
        write = Write("between", self._last[0].attribute, self._last[1])
        for index, (stream, trace) in enumerate(zip(blocks.streams, left, strict=True)):
            x = run.arguments.get(stream.parameter)
            self._check.compare(write, trace, self._view(blocks, index, x))

    def leave(self, run: BlockRun, blocks: BlockList, index: int) -> None:
        """Note what leaves a block."""
        values = [stream.value(run.output) for stream in blocks.streams]
        self._left = [self._check.trace(self._view(blocks, i, x)) for i, x in enumerate(values)]
        self._last = blocks, index

    def end(self) -> None:
        """Compare what left the last block with what it is at the end of the call.

        The model's loop may have changed it, and a reused step has to run that part of the loop.
        """
        left, self._left = self._left, ()
        if self._last is None or not self._check.fingerprints:
            return
        blocks, index = self._last
        if not (blocks.is_part or blocks.by_index):
            for trace in left:
                self._check.compare(Write("after", blocks.attribute, index), trace)

    def _view(self, blocks: BlockList, stream: int, x: Tensor | None) -> Tensor | None:
        return x if x is None or self._split is None else self._split(blocks, stream, x)


class _BlockHandOver(Observer):
    def __init__(self, chain: HandOver, blocks: BlockList, index: int, compares: bool) -> None:
        self._chain, self._blocks, self._index = chain, blocks, index
        self._compares = compares

    def before(self, run: BlockRun) -> None:
        self._chain.enter(run, self._blocks, compares=self._compares)

    def after(self, run: BlockRun) -> None:
        self._chain.leave(run, self._blocks, self._index)


class MetricWatch(Observer):
    """An observer of a metric block, called before the observer that measures it.

    Args:
        check: receives the comparisons.
        attribute: the block list.
        index: index of the block.
        keeps: whether the measurement gets copies, because the block is known to write.
    """

    def __init__(self, check: WriteCheck, attribute: str, index: int, *, keeps: bool) -> None:
        self._check = check
        self._write = Write("metric", attribute, index)
        self._keeps = keeps
        self._traces: list[Trace | None] = []

    def before(self, run: BlockRun) -> None:
        """Copy or trace what enters the block."""
        if self._keeps:
            keep(run, (run.stream,))
        self._traces = [self._check.trace(run.x_in)]

    def tapped(self, run: BlockRun, name: str) -> None:
        """Copy or trace the output of a submodule of the block."""
        if self._keeps:
            run.tap_outputs[name] = tree_map_only(Tensor, torch.clone, run.tap_outputs[name])
        outputs = [x for x in tree_leaves(run.tap_outputs[name]) if isinstance(x, Tensor)]
        self._traces += map(self._check.trace, outputs)

    def after(self, run: BlockRun) -> None:
        """Compare all of them with what they are now."""
        for trace in self._traces:
            self._check.compare(self._write, trace)
        self._traces = []
