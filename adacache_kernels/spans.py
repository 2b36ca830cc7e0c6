"""Spans: what a list of blocks adds to each of its streams, kept as one residual per stream.

All blocks share one schedule, and what stands between them is affine, so the sum of their residuals
is all that a reused step needs. Of the last computed steps, each has its own place in a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from . import ops
from .blocks import ObservedBlock, Observer, Parameters, ReusedBlocks
from .models import BlockList, BlockRun
from .slots import Slots
from .types import Metric


@dataclass(frozen=True)
class Comparison:
    """What the video's residual is compared with while it is stored.

    Args:
        places: of the residuals that the forecast is made from, newest first.
        coefficients: of the forecast, one a place.
        shape: videos and frames.
        strides: frame strides of the motion sums.
        metric: of the distance.
    """

    places: Sequence[int]
    coefficients: Sequence[float]
    shape: tuple[int, int]
    strides: Sequence[int]
    metric: Metric


class Span:
    """The residuals of one block list, for one branch of guidance."""

    taps: Sequence[str] = ()

    def __init__(
        self, blocks: BlockList, modules: nn.ModuleList, slots: Slots, branch: str
    ) -> None:
        self.blocks = blocks
        self._modules = tuple(modules)
        self._slots = slots
        self._branch = branch
        self._parameters = Parameters(self._modules[0])
        self._residuals: dict[int, list[Tensor]] = {}
        self.begin(0)

    def begin(self, place: int, comparison: Comparison | None = None) -> None:
        """A computed forward begins, whose residuals go to `place`."""
        self.end()
        self._place = place
        self._comparison = comparison
        self.sums: Tensor | None = None
        self._runs = 0
        self.written_in_place = False

    def end(self) -> None:
        """A computed forward is over."""
        self._x_in: list[Tensor] = []
        self._versions: list[int] = []

    @property
    def last_index(self) -> int:
        """Index of the last block."""
        return len(self._modules) - 1

    def residuals(self, place: int) -> list[Tensor]:
        """What is stored at `place`, one residual a stream."""
        return self._residuals[place]

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
                self._slots.add(x, [self._residuals[p][index] for p in places], coefficients)

        return (ReusedBlocks(self._modules[0], self.blocks, self._parameters, add),)

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
        accumulate = not (first or self.blocks.chained)
        streams = [stream.read(run.output) for stream in self.blocks.streams]
        slots = [
            self._slots.like(self._key(index, self._place), x) for index, x in enumerate(streams)
        ]
        for index, (slot, x_out, x_in) in enumerate(zip(slots, streams, self._x_in, strict=True)):
            if index == 0 and last and self._comparison is not None:
                self.sums = self._compare(self._comparison, slot, x_out, x_in, accumulate)
            else:
                ops.residual_update(slot, x_out, x_in, accumulate=accumulate)
        self._residuals[self._place] = slots

    def _compare(
        self, to: Comparison, slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool
    ) -> Tensor:
        """The residual into its slot, which may hold the oldest one that it is compared with."""
        slot, x_out, x_in = (self.blocks.layout.split(x, *to.shape) for x in (slot, x_out, x_in))
        others = [place for place in to.places if place != self._place]
        held = "previous" if self._place in to.places else "nothing"
        return ops.distance_update(
            slot,
            x_out,
            x_in,
            [self.blocks.layout.split(self._residuals[p][0], *to.shape) for p in others],
            self._slots.coefficients(slot.device, to.coefficients),
            to.strides,
            to.metric,
            slot_holds="sum" if accumulate else held,
        )

    def _key(self, index: int, place: int) -> tuple[str, str, int, int]:
        return (self._branch, self.blocks.attribute, index, place)


def _version(x: Tensor) -> int:
    # Inference tensors count no versions; there, an in-place write cannot be seen.
    return -1 if x.is_inference() else x._version
