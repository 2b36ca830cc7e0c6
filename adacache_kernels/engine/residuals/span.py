"""Spans: the residual of one block list, or of two interleaved lists, per stream.

All blocks share one schedule, and what happens between them is affine. So a reused step needs only
the sum of their residuals. A ring of slots holds the residuals of the last computed steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...memory.device_slots import ResidualWrite, View
from ...memory.plan import Key, residual_key
from ...memory.residual_store import ResidualStore
from ...models import BlockList, BlockRun
from ...models.block_stand_in import Streams
from ...options import Metric
from .block_stand_ins import Observer, StandIns
from .interleaved_lists import FirstListRecording, Video
from .write_check import Trace, Write, WriteCheck
from .write_observers import HandOver, keep

BlocksByIndex = dict[int, object]
ObserversByList = Mapping[str, Mapping[int, Sequence[Observer]]]
NOT_STORED = -1
"""The ring index of a computed forward call whose residuals are not stored."""


@dataclass(frozen=True)
class Comparison:
    """The forecast with which the video's residual is compared while it is stored.

    Args:
        indices: ring indices of the residuals that the forecast is made from, newest first.
        coefficients: one for each of them.
        strides: frame strides of the motion sums.
        metric: metric of the distance.
    """

    indices: Sequence[int]
    coefficients: Sequence[float]
    strides: Sequence[int]
    metric: Metric


class Span:
    """The residuals of one block list, or of two interleaved lists, in one guidance branch.

    Args:
        blocks: the list; the second one of two interleaved lists.
        modules: its blocks, by index.
        memory: the residual store.
        branch: index of the guidance branch.
        first_list: the stand-ins of the first one of two interleaved lists.
    """

    def __init__(
        self,
        blocks: BlockList,
        modules: Mapping[int, nn.Module],
        memory: ResidualStore,
        branch: int,
        first_list: StandIns | None = None,
    ) -> None:
        self.blocks = blocks
        self.stand_ins = StandIns(blocks, modules)
        self.memory = memory
        self.first_list = first_list
        self._branch = branch
        self.recording = SpanRecording(self, NOT_STORED, (1, 1), WriteCheck())
        """The recording of the last computed forward call."""

    def begin(
        self,
        ring_index: int,
        video: Video,
        check: WriteCheck,
        comparison: Comparison | None,
        *,
        keeps: bool,
    ) -> SpanRecording:
        """Begin a computed forward call and return its recording, which describes the arguments."""
        self.recording = SpanRecording(self, ring_index, video, check, comparison, keeps=keeps)
        return self.recording

    @property
    def attributes(self) -> set[str]:
        """Return the names of the lists in the model: one, or two that are interleaved."""
        lists = [self.blocks] if self.first_list is None else [self.first_list.blocks, self.blocks]
        return {blocks.attribute for blocks in lists}

    def give_every_block(self) -> None:
        """Let reused steps return an element for every block, and not for the first one alone."""
        for stand_ins in (self.stand_ins, self.first_list):
            if stand_ins is not None:
                stand_ins.blocks = replace(stand_ins.blocks, by_index=True)

    def key(self, stream: int, ring_index: int) -> Key:
        """Return the key of the slot of a stream's residual."""
        return residual_key(self._branch, self.blocks.name, stream, ring_index)

    def view(self, stream: int) -> View:
        """Return the view of a stream as four dimensions, the video's as `[B, F, S, C]`."""
        return partial(_split, self.blocks, stream, self.recording.video)

    def streams_of(self, output: Any, other: Span) -> Streams:
        """Return the output of this list's last block as the streams of the span `other`."""
        values = {stream.parameter: stream.value(output) for stream in self.blocks.streams}
        parameters = [stream.parameter for stream in other.blocks.streams]
        if not self.blocks.joined or other is self:
            return [values[parameter] for parameter in parameters]
        whole = self.blocks.streams[0].read(output)
        tokens = dict(zip(parameters, other.recording.tokens, strict=True))
        parts = whole.split_with_sizes([tokens[name] for name in self.blocks.joined], dim=1)
        by_name = dict(zip(self.blocks.joined, parts, strict=True))
        return [by_name[parameter] for parameter in parameters]

    def copied(self, output: Any) -> Any:
        """Return the output of this list's last block with copies of its streams."""
        copies = {
            stream.output: x.clone(memory_format=torch.contiguous_format)
            for stream in self.blocks.streams
            if (x := stream.value(output)) is not None
        }
        if None in copies:
            return copies[None]
        items = [copies.get(index, item) for index, item in enumerate(output)]
        return output._make(items) if hasattr(output, "_make") else type(output)(items)

    def reused(
        self, indices: Sequence[int], coefficients: Sequence[float]
    ) -> dict[str, BlocksByIndex]:
        """Return the blocks of a reused step, by list and index.

        Args:
            indices: ring indices of the residuals to add.
            coefficients: one for each of them.
        """

        def add(blocks: BlockList, streams: Streams) -> Streams:
            return [
                None if x is None else self._sum(blocks, stream, x, indices, coefficients)
                for stream, x in enumerate(streams)
            ]

        own = self.stand_ins.reused(partial(add, self.blocks) if self.blocks.has_residual else None)
        if self.first_list is None:
            return {self.blocks.attribute: own}
        to_first = partial(add, self.first_list.blocks)
        is_alone = self.recording.first_list_ran_alone
        return self._with_first_list(own, self.first_list.reused(to_first if is_alone else None))

    def _sum(
        self,
        blocks: BlockList,
        stream: int,
        x: Tensor,
        indices: Sequence[int],
        coefficients: Sequence[float],
    ) -> Tensor:
        """Return a stream of the list `blocks` plus its residuals, in a new contiguous tensor.

        The model, a hook or another call may hold `x`, so it is not written. An embedding may be a
        transposed view, which the layers after the blocks would have to copy anyway: the add took
        0.17 ms on a view of 256 KiB and 0.04 ms on its copy.
        """
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        self.add_to(out, x, blocks, stream, indices, coefficients)
        return out

    def add_to(
        self,
        out: Tensor,
        x: Tensor,
        blocks: BlockList,
        stream: int,
        indices: Sequence[int],
        coefficients: Sequence[float],
    ) -> None:
        """Write `x`, a stream in the layout of the list `blocks`, plus its residuals to `out`.

        Args:
            out: a tensor like `x`, or `x` itself.
            x: the stream.
            blocks: the list.
            stream: index of the stream.
            indices: ring indices of the residuals.
            coefficients: one for each of them.
        """
        if blocks.layout is not self.blocks.layout:
            video = self.recording.video
            out, x = blocks.split(out, stream, video), blocks.split(x, stream, video)
        keys = [self.key(stream, index) for index in indices]
        self.memory.slots.add(out, x, keys, coefficients, self.view(stream))

    def observed(self, observers: ObserversByList) -> dict[str, BlocksByIndex]:
        """Return the blocks of a computed step, by list and index.

        Args:
            observers: called after the recording, by list and index of the block they observe.
        """
        recording = self.recording
        records = recording.ring_index != NOT_STORED
        if records and self.blocks.has_residual:
            observers = _merged(observers, recording.hand_over())
        own = self.stand_ins.observed(
            (recording,) if records and self.blocks.has_residual else (),
            observers.get(self.blocks.attribute, {}),
        )
        if self.first_list is None:
            return {self.blocks.attribute: own}
        assert recording.first is not None
        first = self.first_list.observed(
            (recording.first,) if records else (),
            observers.get(self.first_list.blocks.attribute, {}),
        )
        return self._with_first_list(own, first)

    def _with_first_list(
        self, own: BlocksByIndex, first: BlocksByIndex
    ) -> dict[str, BlocksByIndex]:
        # Both lists may be parts of one attribute, as the even and the odd blocks.
        assert self.first_list is not None
        name, first_name = self.blocks.attribute, self.first_list.blocks.attribute
        return {name: own | first} if name == first_name else {name: own, first_name: first}

    def prefetch(self, indices: Sequence[int]) -> None:
        """Prepare the residuals at these ring indices for the reused step that begins."""
        self.memory.slots.prefetch([self.key(0, index) for index in indices])


class SpanRecording(Observer):
    """The measurement and storage of one span in one computed forward call.

    Args:
        span: the span.
        ring_index: index of the slots to write, NOT_STORED if nothing is stored.
        video: videos and frames of the call.
        check: looks for writes into the streams.
        comparison: the forecast that the residual is compared with.
        keeps: whether a copy of what enters is held, because the blocks write into it.
    """

    def __init__(
        self,
        span: Span,
        ring_index: int,
        video: Video,
        check: WriteCheck,
        comparison: Comparison | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        first = span.first_list
        self._span = span
        self.ring_index = ring_index
        self.video = video
        self.comparison = comparison
        self.first = None if first is None else FirstListRecording(first, video, check, keeps=keeps)
        self.sums: Tensor | None = None
        """The sums over the residual and its forecast, if they were compared."""
        self.tokens: list[int] = []
        """The number of tokens of each stream, 0 for one that the call does not have."""
        self._check, self._keeps = check, keeps
        self._hand_over = HandOver(check, self._split if first else None)
        self._x_in: Streams = []
        self._entered: list[Trace | None] = []
        self._is_stored = False

    @property
    def first_list_ran_alone(self) -> bool:
        """Return True if the first of two interleaved lists ran, and the second did not."""
        return self.first is not None and self.first.ran_alone

    def before(self, run: BlockRun) -> None:
        """Store the streams that enter the list."""
        if self._x_in:
            return
        if self._keeps:
            keep(run, self._span.blocks.streams)
        streams = [run.arguments.get(stream.parameter) for stream in self._span.blocks.streams]
        if self.first is not None:
            present = [x for x in streams if x is not None]
            streams = [*self.first.begin_second(present, self._span.view)]
        self._x_in = streams
        self._entered = [self._check.trace(x) for x in streams]
        self.tokens = [0 if x is None else x.shape[-2] for x in streams]

    def after(self, run: BlockRun) -> None:
        """Store the residuals if this was the last block."""
        span = self._span
        if run.index != span.stand_ins.last_index:
            return
        if self._is_stored:
            self._check.found.add(Write("twice", span.blocks.attribute))
            return
        self._is_stored = True
        for trace in self._entered:
            self._check.compare(Write("input", span.blocks.attribute), trace)
        for index, (stream, x_in) in enumerate(zip(span.blocks.streams, self._x_in, strict=True)):
            if x_in is not None:
                self._store(index, stream.read(run.output), x_in)

    def hand_over(self) -> ObserversByList:
        """Return the observers of what each block hands on to the next one."""
        span, result = self._span, dict[str, dict[int, list[Observer]]]()
        lists = [stand_ins for stand_ins in (span.first_list, span.stand_ins) if stand_ins]
        if not self._check.sees_between_blocks:
            return result
        for stand_ins in lists:
            by_index = result.setdefault(stand_ins.blocks.attribute, {})
            for index in stand_ins.indices:
                # Before the first block of a second list, the model may add a tensor.
                may_change = stand_ins is not lists[0] and index == stand_ins.first_index
                may_change = may_change or stand_ins.blocks.replaces_tokens
                observer = self._hand_over.observer(
                    stand_ins.blocks, index, compares=not may_change
                )
                by_index[index] = [observer]
        return result

    def end(self) -> None:
        """End the call: store the residual of a first list that ran alone, release the streams."""
        self._x_in, self._entered = [], []
        self._hand_over.end()
        if self.first is None:
            return
        if self.first.ran_alone:
            for index in range(len(self._span.blocks.streams)):
                x_out, x_in = self.first.around(index)
                self._update(index, ResidualWrite(x_out, x_in, self._span.view(index)))
        self.first.release()

    def _store(self, index: int, x_out: Tensor, x_in: Tensor) -> None:
        """Write a residual into its slot, which may hold the oldest residual of the forecast."""
        view, comparison = self._span.view(index), self.comparison
        if index > 0 or comparison is None:
            self._update(index, ResidualWrite(x_out, x_in, view))
            return
        others = [i for i in comparison.indices if i != self.ring_index]
        write = ResidualWrite(
            x_out,
            x_in,
            view,
            "previous" if self.ring_index in comparison.indices else "nothing",
            [self._span.key(0, i) for i in others],
            comparison.coefficients,
            comparison.strides,
            comparison.metric,
        )
        self.sums = self._update(index, write)

    def _split(self, blocks: BlockList, stream: int, x: Tensor) -> Tensor:
        return blocks.split(x, stream, self.video)

    def _update(self, index: int, write: ResidualWrite) -> Tensor | None:
        key = self._span.key(index, self.ring_index)
        return self._span.memory.slots.update(key, write)


def _merged(first: ObserversByList, second: ObserversByList) -> ObserversByList:
    """Return the observers of both, by list and index; those of `first` are called first."""
    return {
        name: {
            index: [*first.get(name, {}).get(index, ()), *second.get(name, {}).get(index, ())]
            for index in {**first.get(name, {}), **second.get(name, {})}
        }
        for name in {**first, **second}
    }


def _split(blocks: BlockList, stream: int, video: Video, x: Tensor) -> Tensor:
    return x if x.dim() == 4 else blocks.split(x, stream, video)
