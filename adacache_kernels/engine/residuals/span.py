"""Spans: what blocks add to each of their streams, kept as one residual per stream.

All blocks share one schedule, and what stands between them is affine, so the sum of their residuals
is all that a reused step needs. Of the last computed steps, each has its own place in a ring.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...memory.device_slots import ResidualWrite, View
from ...memory.plan import Key, residual_key
from ...memory.residual_store import ResidualStore
from ...models import BlockList, BlockRun
from ...models.block_calls import version
from ...options import Metric
from .block_stand_ins import Observer, StandIns
from .interleaved_lists import InterleavedList


@dataclass(frozen=True)
class Comparison:
    """What the video's residual is compared with while it is stored.

    Args:
        places: of the residuals that the forecast is made from, newest first.
        coefficients: of the forecast, one a place.
        strides: frame strides of the motion sums.
        metric: of the distance.
    """

    places: Sequence[int]
    coefficients: Sequence[float]
    strides: Sequence[int]
    metric: Metric


class Span:
    """The residuals of one block list, for one branch of guidance.

    Args:
        blocks: the list.
        modules: its blocks.
        memory: where residuals are kept.
        branch: index of the branch.
        leading: the list before, where the blocks of both take turns.
    """

    taps: Sequence[str] = ()

    def __init__(
        self,
        blocks: BlockList,
        modules: Mapping[int, nn.Module],
        memory: ResidualStore,
        branch: int,
        leading: InterleavedList | None = None,
    ) -> None:
        self.blocks = blocks
        self._stand_ins = StandIns(blocks, modules)
        self._memory = memory
        self._branch = branch
        self._leading = leading
        self._led_alone = False
        self.begin(0, (1, 1))

    def begin(
        self, place: int, video: tuple[int, int], comparison: Comparison | None = None
    ) -> None:
        """A computed forward of (videos, frames) begins, whose residuals go to `place`."""
        self._place, self._video = place, video
        self._forget_streams()
        self._comparison = comparison
        self.sums: Tensor | None = None
        self._written_in_place = False
        if self._leading is not None:
            self._leading.begin(video)

    def compare_with_nothing(self) -> None:
        """What the residual was to be compared with is lost."""
        self._comparison = None

    def end(self) -> None:
        """A computed forward is over."""
        self._forget_streams()
        if self._leading is not None:
            self._store_leading(self._leading)
            self._leading.release()

    def _forget_streams(self) -> None:
        self._x_in: list[Tensor | None] = []
        self._versions: list[int] = []

    @property
    def written_in_place(self) -> bool:
        """Whether a block of the last computed forward wrote into its input."""
        by_leading = self._leading is not None and self._leading.written_in_place
        return self._written_in_place or by_leading

    @property
    def last_index(self) -> int:
        """Index of the last block in its list."""
        return self._stand_ins.last_index

    def key(self, stream: int, place: int) -> Key:
        """Of the residual of a stream at a place of the ring."""
        return residual_key(self._branch, self.blocks.name, stream, place)

    def leaving(self, output: Any, of: Span) -> list[Tensor | None]:
        """What this list's last block returned, as the streams of the span `of`."""
        values = {stream.parameter: stream.value(output) for stream in self.blocks.streams}
        parameters = [stream.parameter for stream in of.blocks.streams]
        if not self.blocks.joined or of is self:
            return [values[parameter] for parameter in parameters]
        whole = self.blocks.streams[0].read(output)
        sizes = dict(zip(parameters, of._tokens, strict=True))
        parts = whole.split_with_sizes([sizes[name] for name in self.blocks.joined], dim=1)
        by_name = dict(zip(self.blocks.joined, parts, strict=True))
        return [by_name[parameter] for parameter in parameters]

    def view(self, stream: int) -> View:
        """From a stream to four dimensions."""
        return partial(_split, self.blocks, stream, self._video)

    def observed(
        self, observers: Mapping[str, Mapping[int, Sequence[Observer]]], recording: bool
    ) -> dict[str, dict[int, object]]:
        """What stands for the blocks in a computed step, by list and index.

        Args:
            observers: called after the span, by list and index of the block that they watch.
            recording: whether the span stores what the blocks add.
        """
        name = self.blocks.attribute
        own = (self,) if recording and self.blocks.has_residual else ()
        lists = {name: self._stand_ins.observed(own, observers.get(name, {}))}
        if self._leading is not None:
            name = self._leading.blocks.attribute
            leading = (self._leading,) if recording else ()
            found = self._leading.stand_ins.observed(leading, observers.get(name, {}))
            lists[name] = lists.get(name, {}) | found
        return lists

    def reused(
        self, places: Sequence[int], coefficients: Sequence[float], given: Container[int]
    ) -> dict[str, dict[int, object]]:
        """What stands for the blocks in a reused step, by list and index.

        Args:
            places: of the residuals to add.
            coefficients: one a place.
            given: storages that must not be written to.
        """

        def add(streams: Sequence[Tensor | None]) -> None:
            for index, x in enumerate(streams):
                if x is not None:
                    keys = [self.key(index, place) for place in places]
                    self._memory.slots.add(x, keys, coefficients, self.view(index))

        def add_to_leading(streams: Sequence[Tensor | None]) -> None:
            assert self._leading is not None
            split = self._leading.blocks.split
            add(
                [
                    None if x is None else split(x, index, self._video)
                    for index, x in enumerate(streams)
                ]
            )

        to_own = add if self.blocks.has_residual else None
        lists = {self.blocks.attribute: self._stand_ins.reused(to_own, given)}
        if self._leading is not None:
            to_leading = add_to_leading if self._led_alone else None
            name = self._leading.blocks.attribute
            found = self._leading.stand_ins.reused(to_leading, given)
            lists[name] = lists.get(name, {}) | found
        return lists

    def prefetch(self, places: Sequence[int]) -> None:
        """The next thing is to reuse what lies at these places."""
        self._memory.slots.prefetch([self.key(0, place) for place in places])

    def before(self, run: BlockRun) -> None:
        """Keep what the list adds to."""
        if self._x_in:
            return
        streams = [run.arguments.get(stream.parameter) for stream in self.blocks.streams]
        if self._leading is not None:
            present = [x for x in streams if x is not None]
            streams = [*self._leading.begin_next(present, self.view)]
        self._x_in = streams
        self._versions = _versions(streams)
        self._tokens = [0 if x is None else x.shape[-2] for x in streams]

    def after(self, run: BlockRun) -> None:
        """Store what the list has added."""
        if run.block is not self._stand_ins.last:
            return
        if self._versions != _versions(self._x_in):
            self._written_in_place = True
        for index, (stream, x_in) in enumerate(zip(self.blocks.streams, self._x_in, strict=True)):
            if x_in is not None:
                self._store(index, stream.read(run.output), x_in)

    def _store_leading(self, leading: InterleavedList) -> None:
        """What the leading list has added, if the other one has not run."""
        self._led_alone = leading.ran_alone
        if not leading.ran_alone:
            return
        for index in range(len(leading.blocks.streams)):
            x_out, x_in = leading.around(index)
            update = ResidualWrite(x_out, x_in, self.view(index))
            self._memory.slots.update(self.key(index, self._place), update)

    def _compares(self, index: int) -> bool:
        return index == 0 and self._comparison is not None

    def _store(self, index: int, x_out: Tensor, x_in: Tensor) -> None:
        """The list's residual into its slot, which may hold the oldest one it is compared with."""
        key, view = self.key(index, self._place), self.view(index)
        if not self._compares(index):
            self._memory.slots.update(key, ResidualWrite(x_out, x_in, view))
            return
        to = self._comparison
        assert to is not None
        self.sums = self._memory.slots.update(
            key,
            ResidualWrite(
                x_out,
                x_in,
                view,
                "previous" if self._place in to.places else "nothing",
                [self.key(0, place) for place in to.places if place != self._place],
                to.coefficients,
                to.strides,
                to.metric,
            ),
        )


def _versions(streams: Sequence[Tensor | None]) -> list[int]:
    return [-1 if x is None else version(x) for x in streams]


def _split(blocks: BlockList, stream: int, video: tuple[int, int], x: Tensor) -> Tensor:
    return x if x.dim() == 4 else blocks.split(x, stream, video)
