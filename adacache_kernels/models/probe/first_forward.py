"""Observe in one forward call how the hidden state runs through lists of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ...options import CacheRes
from ..adapter import Adapter, BlockList, Residual, Stream
from ..block_calls import Parameters, whole_list
from ..block_stand_in import BlockCall, StandIn, block_stand_in
from ..frames import Frames
from ..layout import Layout
from .observed_attention import AttentionWatch
from .observed_list import ObservedList, OutputIndices
from .unclear import Unclear
from .video_input import GivenFrames, batch_of, given_frames, video_layout

FORWARD = "by its first forward"


class Probe:
    """An observer of block lists in one forward call, which makes an adapter from it.

    Args:
        model: the model, of an unknown class.
        names: dotted names of its block lists.
        frames: the frames that the user gave, if any.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], frames: GivenFrames | None = None
    ) -> None:
        self._model = model
        self._given_frames = frames
        self._observed = {name: [ObservedList(name, whole_list(model, name))] for name in names}
        self._calls: list[ObservedList] = []
        self._attention: AttentionWatch | None = None

    def lists(self) -> dict[str, tuple[object, ...]]:
        """Return the lists of stand-ins for the forward call to observe."""
        return {
            name: tuple(self._stand_in(sweeps, index) for index in range(len(sweeps[0].blocks)))
            for name, sweeps in self._observed.items()
        }

    def _stand_in(self, sweeps: list[ObservedList], index: int) -> StandIn:
        block = sweeps[0].blocks[index]

        def handle(call: BlockCall) -> Any:
            if index == 0 and sweeps[-1].has_run:
                sweeps.append(ObservedList(sweeps[0].name, sweeps[0].blocks))
            observed = sweeps[-1]
            if not self._calls or self._calls[-1] is not observed:
                self._begin(observed, call.arguments)
            observed.before(index, call)
            with self._watching(call):
                output = call.run()
            observed.after(call, output)
            return output

        return block_stand_in(block, Parameters(block), handle)

    def _watching(self, call: BlockCall) -> AbstractContextManager[None]:
        """Return a context that watches the submodules of the very first block that runs."""
        if self._attention is not None:
            return nullcontext()
        self._attention = AttentionWatch(call.block)
        return self._attention.watching(call.arguments)

    def _begin(self, observed: ObservedList, arguments: Mapping[str, Any]) -> None:
        """Note that the calls of a list begin, and which of its arguments joins streams."""
        if self._calls and not observed.order:
            first = self._observed[self._calls[0].name][-1]
            observed.joins = {name: first.joined_in(x) for name, x in arguments.items()}
        self._calls.append(observed)

    def adapter(self, arguments: Mapping[str, Any]) -> Adapter:
        """Return the adapter that follows from the observed forward call.

        Args:
            arguments: arguments of the model's forward, by name.

        Raises:
            Unclear: the call does not show how the blocks are connected; says why.
        """
        ran = self._ran
        if not ran:
            raise Unclear("no block of these lists ran in the first forward call")
        runs = [self._observed[name] for name in ran]
        if len(self._calls) > sum(map(len, runs)):
            raise Unclear(f"the blocks of {' and '.join(ran)} are interleaved")
        return self._adapter_of(runs, arguments)

    @property
    def _ran(self) -> list[str]:
        """Return the names of the lists that ran, in their order."""
        return list(dict.fromkeys(observed.name for observed in self._calls))

    def alone(self, arguments: Mapping[str, Any]) -> str:
        """Return the name of a list that can be cached if it is the only one; "" if none can."""
        for name in self._ran if len(self._observed) > 1 else ():
            try:
                self._adapter_of([self._observed[name]], arguments)
            except Unclear:
                continue
            return name
        return ""

    def _adapter_of(
        self, runs: Sequence[Sequence[ObservedList]], arguments: Mapping[str, Any]
    ) -> Adapter:
        """Return the adapter of lists, each with its observation in every sweep."""
        sweeps = [list(sweep) for sweep in zip_longest(*runs)]
        if any(observed is None for sweep in sweeps for observed in sweep):
            counts = ((len(of_list), of_list[0].name) for of_list in runs)
            times = (f"{count} time{'s'[: count > 1]} through {name}" for count, name in counts)
            raise Unclear(f"one forward call ran {' and '.join(times)}")
        if any(_shapes(sweep) != _shapes(sweeps[0]) for sweep in sweeps):
            raise Unclear(_differ(runs))
        first = sweeps[0][0]
        _, streams = _streams(first)
        layout, frames, parts = self._video(first, streams, len(sweeps), arguments)
        of_sweeps = [self._lists(sweep, layout) for sweep in sweeps]
        if any(lists != of_sweeps[0] for lists in of_sweeps):
            raise Unclear(_differ(runs))
        lists = [
            replace(blocks, sweep=number)
            for number, lists in enumerate(of_sweeps)
            for blocks in lists
        ]
        adapter = Adapter(tuple(lists), {}, frames, origin=FORWARD, parts=parts)
        video = adapter.video(self._model, arguments)
        self._check_frames(first.entering[streams[0]], video)
        return replace(adapter, residuals=self._residuals(of_sweeps[0], video))

    def _video(
        self,
        first: ObservedList,
        streams: list[str],
        sweeps: int,
        arguments: Mapping[str, Any],
    ) -> tuple[Layout, Frames, int]:
        """Return the layout of the video stream, the frames, and the parts of the batch.

        If the blocks run several times, each sweep has an equal part of the batch, or all of it.
        """
        video, entering = first.entering[streams[0]], first.entering
        for parts in range(sweeps, 1, -1):
            if sweeps % parts == 0 and batch_of(arguments) % parts == 0:
                with suppress(Unclear):
                    layout, frames = video_layout(self._model, arguments, video, entering, parts)
                    return layout, self._frames(frames), parts
        layout, frames = video_layout(self._model, arguments, video, entering)
        return layout, self._frames(frames), 1

    def _frames(self, found: Frames) -> Frames:
        return found if self._given_frames is None else given_frames(self._given_frames)

    def _lists(self, ran: Sequence[ObservedList], layout: Layout) -> list[BlockList]:
        """Return the block lists of one sweep."""
        lists: list[BlockList] = []
        for observed in ran:
            indices, streams = _streams(observed)
            observed.check(streams)
            joined = _joined(ran[0], observed, streams, lists[0] if lists else None)
            whole = _whole(observed, indices, streams, layout, joined)
            lists += _cut(whole, observed, streams)
        return lists

    def _residuals(
        self, lists: Sequence[BlockList], video: tuple[int, int]
    ) -> dict[CacheRes, Residual]:
        """Return the residuals that can be measured."""
        measured = tuple(dict.fromkeys(blocks.attribute for blocks in lists if not blocks.joined))
        block = Residual(measured)
        first = lists[0].attribute
        kinds = {type(block) for block in whole_list(self._model, first)}
        attention = None
        if self._attention is not None and len(kinds) == 1 and self._calls[0].name == first:
            attention = self._attention.residual(lists[0], video, (first,))
        return {"block": block} if attention is None else {"s-attn": attention, "block": block}

    def _check_frames(self, x: Tensor, video: tuple[int, int]) -> None:
        videos, frames = video
        tokens = x.numel() // x.shape[-1] // max(1, videos)
        if frames < 1 or tokens % frames:
            raise Unclear(f"frames={frames} does not divide the {tokens} tokens of a video")


def _shapes(sweep: Sequence[ObservedList]) -> list[torch.Size]:
    """Return the shapes of the streams that enter the lists of a sweep."""
    return [observed.entering[name].shape for observed in sweep for name in _streams(observed)[1]]


def _differ(runs: Sequence[Sequence[ObservedList]]) -> str:
    names = " and ".join(of_list[0].name for of_list in runs)
    return f"the blocks of {names} ran {len(runs[0])} times in one forward call, and differently"


def _joined(
    start: ObservedList, observed: ObservedList, streams: list[str], first: BlockList | None
) -> tuple[str, ...]:
    """Return the first list's streams that this list's stream joins; none if they are equal."""
    if first is None:
        return ()
    known = {stream.parameter: start.entering[stream.parameter].shape for stream in first.streams}
    if all(known.get(p) == observed.entering[p].shape for p in streams):
        return ()
    by_output = {stream.output: stream.parameter for stream in first.streams}
    order = [by_output.get(index) for index in observed.joins.get(streams[0], ())]
    parameters = tuple(parameter for parameter in order if parameter is not None)
    is_batch_first = first.layout is Layout.FRAME_MAJOR
    if len(streams) == 1 and order and len(parameters) == len(order) and is_batch_first:
        return parameters
    if len(streams) == 1 and observed.entering[streams[0]].shape == next(iter(known.values())):
        return ()
    raise Unclear(f"the streams of {observed.name} are not those of {first.attribute}")


def _streams(observed: ObservedList) -> tuple[OutputIndices, list[str]]:
    """Return the output index of each value that is passed on, and the streams, the video first."""
    if not observed.has_run:
        count = len(observed.blocks)
        raise Unclear(f"the {count} blocks of {observed.name} did not each run once, in order")
    indices = _output_indices(observed)
    streams = [p for p, index in indices.items() if _leaves(observed, index)]
    unknown = [p for p in streams if p not in observed.entering]
    if unknown:
        raise Unclear(f"not every block of {observed.name} takes {unknown[0]}")
    streams.sort(key=lambda p: (_is_text(p), -observed.entering[p].numel()))
    if not streams:
        raise Unclear(f"no tensor runs through {observed.name} from block to block")
    for parameter in streams:
        entering, leaving = observed.entering[parameter], observed.leaving[indices[parameter] or 0]
        if entering.shape != leaving.shape:
            raise Unclear(
                f"{parameter} enters {observed.name} with shape {list(entering.shape)} and leaves "
                f"it with shape {list(leaving.shape)}"
            )
    return indices, streams


def _whole(
    observed: ObservedList,
    indices: OutputIndices,
    streams: list[str],
    layout: Layout,
    joined: tuple[str, ...],
) -> BlockList:
    passed = _passed(observed, indices)
    return BlockList(
        observed.name,
        tuple(Stream(p, indices[p]) for p in streams),
        layout,
        passed=tuple(Stream(n, index) for n, index in passed.items()),
        output_length=len(observed.leaving) if observed.is_tuple else 0,
        joined=joined,
        by_index=True,
    )


def _output_indices(observed: ObservedList) -> OutputIndices:
    """Return the output index of each stream, if all transitions have the same."""
    result: OutputIndices = {}
    for transition in observed.transitions:
        for name, index in transition.items():
            if result.setdefault(name, index) != index:
                raise Unclear(
                    f"blocks of {observed.name} pass {name} on from different elements of their "
                    "output"
                )
    indices = [index for index in result.values() if index is not None]
    if len(set(indices)) < len(indices):
        raise Unclear(f"blocks of {observed.name} pass one value on as several arguments")
    if result:
        return result
    # The model changes what leaves each block, so no output is an argument of the next block.
    if len(observed.same_shape) == 1 and not observed.is_tuple:
        return {observed.same_shape[0]: None}
    raise Unclear(
        f"what leaves a block of {observed.name} is not what enters the next one, and its shape "
        "does not show which argument it is"
    )


def _passed(observed: ObservedList, indices: OutputIndices) -> dict[str, int]:
    """Return the output index of each argument that the blocks return unchanged."""
    others = set(range(len(observed.leaving))) - set(indices.values())
    unclear = [i for i in others if observed.leaving[i] is not None] if observed.is_tuple else []
    passed = {name: i for name, i in observed.unchanged[0].items() if i in unclear}
    lost = sorted(set(unclear) - set(passed.values()))
    if lost:
        raise Unclear(f"nothing takes element {lost[0]} of the output of blocks of {observed.name}")
    return passed


def _leaves(observed: ObservedList, index: int | None) -> bool:
    """Return True if the value leaves the last block."""
    return isinstance(observed.leaving[index or 0], Tensor)


def _cut(whole: BlockList, observed: ObservedList, streams: list[str]) -> list[BlockList]:
    """Return the parts of a list; one begins where the model changed a stream."""
    breaks = [
        index
        for index, transition in enumerate(observed.transitions, 1)
        if any(s not in transition or observed.changed(index - 1, s) for s in streams)
    ]
    if not breaks:
        return [whole]
    starts, stops = (0, *breaks), (*breaks, None)
    return [
        replace(whole, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)
    ]


def _is_text(parameter: str) -> bool:
    return any(word in parameter for word in ("encoder", "text", "txt", "context", "caption"))
