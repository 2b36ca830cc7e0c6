"""The first of two interleaved lists, which share one residual with the second list.

Latte has spatial and temporal blocks S and T, changes of layout P, and an embedding e before T_1:

    x -> S_1 -> P + e -> T_1 -> P^-1 -> S_2 -> P -> T_2 -> ...

From T_1 to the last T there are only blocks, and changes of layout that undo each other. So the sum
of what the blocks add, in the layout of T, is

    R = T_out - (T_in - P(S_out - S_in))        T_in enters T_1, T_out leaves the last T

where S_in enters S_1 and S_out leaves it. Only two blocks are observed, however many there are.
Adding up what each block adds took 5 % of the demo's computed step, and holding the streams 3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...memory.device_slots import View
from ...models import BlockRun
from .block_stand_ins import Observer, StandIns
from .write_check import Trace, Write, WriteCheck
from .write_observers import keep

Video = tuple[int, int]
"""The numbers of videos and of frames in a forward call."""


class FirstListRecording(Observer):
    """The streams around the first block of an interleaved list, in one computed forward call.

    They are held until the second list begins. If the second list does not run at all, as in a
    Latte that makes a single image, the blocks of the first list follow each other directly. Their
    residual is then what they add from the first to the last block.

    Args:
        stand_ins: the stand-ins of the list.
        video: videos and frames of the call.
        check: looks for writes into these streams while they are held.
        keeps: whether copies of them are held, because there are such writes.
    """

    def __init__(
        self, stand_ins: StandIns, video: Video, check: WriteCheck, *, keeps: bool = False
    ) -> None:
        self._stand_ins = stand_ins
        self._video = video
        self._check, self._keeps = check, keeps
        self._x_in: list[Tensor] = []
        self._x_out: list[Tensor] = []
        self._entered: list[Trace | None] = []
        self._left: list[Trace | None] = []
        self.ran_alone = False
        """True if the whole list has run and the second list has not."""

    def before(self, run: BlockRun) -> None:
        """Store what enters the first block."""
        if run.index != self._stand_ins.first_index or self._x_in:
            return
        streams = self._stand_ins.blocks.streams
        if self._keeps:
            keep(run, streams)
        self._x_in = [run.arguments[stream.parameter] for stream in streams]
        self._entered = [self._check.trace(x) for x in self._x_in]

    def after(self, run: BlockRun) -> None:
        """Store what leaves the first block, or the last one if the second list has not begun."""
        if not self._x_in:
            return
        x_out = [stream.read(run.output) for stream in self._stand_ins.blocks.streams]
        self._x_out = [x.clone() for x in x_out] if self._keeps else x_out
        self._left = [self._check.trace(x) for x in self._x_out]
        self.ran_alone = run.index == self._stand_ins.last_index

    def release(self) -> None:
        """Look for writes into the streams, and release them."""
        write = Write("input", self._stand_ins.blocks.attribute)
        for trace in (*self._entered, *self._left):
            self._check.compare(write, trace)
        self._x_in, self._x_out, self._entered, self._left = [], [], [], []

    def around(self, stream: int) -> tuple[Tensor, Tensor]:
        """Return `(x_out, x_in)` of the observed blocks, as views of four dimensions."""
        x_out, x_in = self._x_out[stream], self._x_in[stream]
        split = self._stand_ins.blocks.split
        return split(x_out, stream, self._video), split(x_in, stream, self._video)

    def begin_second(self, streams: Sequence[Tensor], view: Callable[[int], View]) -> list[Tensor]:
        """Return T_in - P(S_out - S_in) for each stream T_in, and release the streams.

        Args:
            streams: what enters the second list.
            view: for each stream's index, its view of four dimensions.
        """
        if not self._x_out:
            return list(streams)
        results = [torch.empty_like(x) for x in streams]
        for index, (x, result) in enumerate(zip(streams, results, strict=True)):
            split, (x_out, x_in) = view(index), self.around(index)
            # This order loses little in half precision: the first difference is just e.
            torch.sub(split(x), x_out, out=split(result)).add_(x_in)
        self.ran_alone = False
        self.release()
        return results
