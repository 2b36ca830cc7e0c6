"""Spans: what a list of blocks adds to each of its streams, kept as one residual per stream.

All blocks share one schedule, and what stands between them is affine, so the sum of their residuals
is all that a reused step needs. Of the last computed steps, each has its own place in a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from . import ops
from .blocks import ObservedBlock, Observer, Parameters, ReusedBlocks
from .cache_memory import CacheMemory
from .cache_plan import Key, residual_key, sum_key
from .models import BlockList, BlockRun
from .slots import Update, View
from .types import Metric


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
    """The residuals of one block list, for one branch of guidance."""

    taps: Sequence[str] = ()

    def __init__(
        self, blocks: BlockList, modules: nn.ModuleList, memory: CacheMemory, branch: int
    ) -> None:
        self.blocks = blocks
        self._modules = tuple(modules)
        self._memory = memory
        self._branch = branch
        self._parameters = Parameters(self._modules[0])
        self.begin(0, (1, 1))

    def begin(
        self, place: int, video: tuple[int, int], comparison: Comparison | None = None
    ) -> None:
        """A computed forward of (videos, frames) begins, whose residuals go to `place`."""
        self.end()
        self._place, self._video = place, video
        self._comparison = comparison
        self.sums: Tensor | None = None
        self._runs = 0
        self.written_in_place = False

    def compare_with_nothing(self) -> None:
        """What the residual was to be compared with is lost."""
        self._comparison = None

    def end(self) -> None:
        """A computed forward is over."""
        self._x_in: list[Tensor] = []
        self._versions: list[int] = []

    @property
    def last_index(self) -> int:
        """Index of the last block."""
        return len(self._modules) - 1

    def key(self, stream: int, place: int) -> Key:
        """Of the residual of a stream at a place of the ring."""
        return residual_key(self._branch, self.blocks.attribute, stream, place)

    def view(self, stream: int) -> View:
        """From a stream to four dimensions."""
        return partial(self.blocks.split, stream=stream, video=self._video)

    def observed(
        self, observers: Mapping[int, Sequence[Observer]], recording: bool
    ) -> tuple[object, ...]:
        """The list of a computed step.

        Args:
            observers: called after the span, by index of the block that they watch.
            recording: whether the span stores what the blocks add.
        """
        return tuple(
            self._observed(index, observers.get(index, ()), recording)
            for index in range(len(self._modules))
        )

    def reused(self, places: Sequence[int], coefficients: Sequence[float]) -> tuple[object, ...]:
        """The list of a reused step: one element, whatever the number of blocks."""

        def add(streams: Sequence[Tensor]) -> None:
            for index, x in enumerate(streams):
                keys = [self.key(index, place) for place in places]
                self._memory.slots.add(x, keys, coefficients, self.view(index))

        return (ReusedBlocks(self._modules[0], self.blocks, self._parameters, add),)

    def prefetch(self, places: Sequence[int]) -> None:
        """The next thing is to reuse what lies at these places."""
        self._memory.slots.prefetch([self.key(0, place) for place in places])

    def _observed(self, index: int, others: Sequence[Observer], recording: bool) -> object:
        inner = 0 < index < len(self._modules) - 1
        watch = recording and not (self.blocks.chained and inner)
        observers: tuple[Observer, ...] = (self, *others) if watch else tuple(others)
        block = self._modules[index]
        if not observers:
            return block
        return ObservedBlock(block, self.blocks, self._parameters, observers)

    def before(self, run: BlockRun) -> None:
        """Keep the streams as they are before the list (chained) or before this block."""
        if self.blocks.chained and self._runs > 0:
            return
        self._x_in = [run.arguments[stream.parameter] for stream in self.blocks.streams]
        self._versions = [_version(x) for x in self._x_in]

    def after(self, run: BlockRun) -> None:
        """Store what the list (chained), or add what this block, has added."""
        first, self._runs = self._runs == 0, self._runs + 1
        last = run.block is self._modules[-1]
        if self.blocks.chained and not last:
            return
        if self._versions != [_version(x) for x in self._x_in]:
            self.written_in_place = True
        for index, stream in enumerate(self.blocks.streams):
            x_out, x_in = stream.read(run.output), self._x_in[index]
            if self.blocks.chained:
                self._store(index, x_out, x_in, "nothing")
            elif self._memory.can_add_up:
                self._add_in_slot(index, x_out, x_in, first=first, last=last)
            else:
                self._add_beside(index, x_out, x_in, first=first, last=last)

    def _add_in_slot(
        self, index: int, x_out: Tensor, x_in: Tensor, *, first: bool, last: bool
    ) -> None:
        """The residual of one block, added to those of the list in the slot itself."""
        if last and self._compares(index):
            return self._store(index, x_out, x_in, "nothing" if first else "sum")
        slot = self._memory.tensor(self.key(index, self._place))
        ops.residual_update(slot, x_out, x_in, accumulate=not first)

    def _add_beside(
        self, index: int, x_out: Tensor, x_in: Tensor, *, first: bool, last: bool
    ) -> None:
        """The residual of one block, added up beside the slot, which gets the sum at the end."""
        total = self._memory.tensor(sum_key(self.blocks.attribute, index, tuple(x_out.shape)))
        ops.residual_update(total, x_out, x_in, accumulate=not first)
        if last:
            self._store(index, total, None, "nothing")

    def _compares(self, index: int) -> bool:
        return index == 0 and self._comparison is not None

    def _store(self, index: int, x_out: Tensor, x_in: Tensor | None, slot_holds: str) -> None:
        """The list's residual into its slot, which may hold the oldest one it is compared with."""
        key, view = self.key(index, self._place), self.view(index)
        if not self._compares(index):
            self._memory.slots.update(key, Update(x_out, x_in, view, slot_holds))
            return
        to = self._comparison
        assert to is not None
        holds_oldest = slot_holds == "nothing" and self._place in to.places
        self.sums = self._memory.slots.update(
            key,
            Update(
                x_out,
                x_in,
                view,
                "previous" if holds_oldest else slot_holds,
                [self.key(0, place) for place in to.places if place != self._place],
                to.coefficients,
                to.strides,
                to.metric,
            ),
        )


def _version(x: Tensor) -> int:
    # Inference tensors count no versions; there, an in-place write cannot be seen.
    return -1 if x.is_inference() else x._version
