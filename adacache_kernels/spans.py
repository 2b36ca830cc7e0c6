"""Spans: what a list of blocks adds to each of its streams, kept as one residual per stream.

All blocks share one schedule, and what stands between them is affine, so the sum of their residuals
is all that a reused step needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from . import ops
from .blocks import ObservedBlock, Observer, Parameters, ReusedBlocks
from .models import BlockList, BlockRun
from .slots import Slots


class Span:
    """The residuals of one block list, for one branch of guidance."""

    taps: Sequence[str] = ()

    def __init__(
        self, blocks: BlockList, modules: nn.ModuleList, slots: Slots, branch: str
    ) -> None:
        self._blocks = blocks
        self._modules = tuple(modules)
        self._slots = slots
        self._branch = branch
        self._parameters = Parameters(self._modules[0])
        self._x_in: list[Tensor] = []
        self._versions: list[int] = []
        self._residuals: list[Tensor] = []
        self._runs = 0
        self.written_in_place = False

    def begin(self) -> None:
        """A computed forward begins: what is stored no longer holds."""
        self.end()
        self._residuals, self._runs = [], 0
        self.written_in_place = False

    def end(self) -> None:
        """A computed forward is over."""
        self._x_in, self._versions = [], []

    def observed(
        self, observers: Mapping[int, Sequence[Observer]], recording: bool
    ) -> tuple[object, ...]:
        """The list of a computed step.

        Args:
            observers: called besides the span, by index of the block that they watch.
            recording: whether the span stores what the blocks add.
        """
        return tuple(
            self._observed(index, observers.get(index, ()), recording)
            for index in range(len(self._modules))
        )

    def reused(self) -> tuple[object, ...]:
        """The list of a reused step: one element, whatever the number of blocks."""
        return (ReusedBlocks(self._modules[0], self._blocks, self._parameters, self._add),)

    def _observed(self, index: int, others: Sequence[Observer], recording: bool) -> object:
        inner = 0 < index < len(self._modules) - 1
        watch = recording and not (self._blocks.chained and inner)
        observers: tuple[Observer, ...] = (self, *others) if watch else tuple(others)
        block = self._modules[index]
        if not observers:
            return block
        return ObservedBlock(block, self._blocks, self._parameters, observers)

    def before(self, run: BlockRun) -> None:
        """Keep the streams as they are before the list (chained) or before this block."""
        if self._blocks.chained and self._runs > 0:
            return
        self._x_in = [run.arguments[stream.parameter] for stream in self._blocks.streams]
        self._versions = [_version(x) for x in self._x_in]

    def after(self, run: BlockRun) -> None:
        """Store what the list (chained), or add what this block, has added."""
        first, self._runs = self._runs == 0, self._runs + 1
        last = run.block is self._modules[-1]
        if self._blocks.chained and not last:
            return
        if self._versions != [_version(x) for x in self._x_in]:
            self.written_in_place = True
        accumulate = not (first or self._blocks.chained)
        for index, (stream, x_in) in enumerate(zip(self._blocks.streams, self._x_in, strict=True)):
            self._store(index, stream.read(run.output), x_in, accumulate=accumulate)

    def _store(self, index: int, x_out: Tensor, x_in: Tensor, *, accumulate: bool) -> None:
        key = (self._branch, self._blocks.attribute, index)
        slot = self._slots.like(key, x_out)
        ops.residual_update(slot, x_out, x_in, accumulate=accumulate)
        if not accumulate:
            self._residuals.append(slot)

    def _add(self, streams: Sequence[Tensor]) -> None:
        for x, residual in zip(streams, self._residuals, strict=True):
            one, always = self._slots.switched_on(x.device)
            ops.conditional_add(x, [residual], one, always)


def _version(x: Tensor) -> int:
    # Inference tensors count no versions; there, an in-place write cannot be seen.
    return -1 if x.is_inference() else x._version
