"""A list whose blocks take turns with those of the next list, so that both have one residual.

Latte: spatial and temporal blocks S, T, the changes of layout P, and an embedding e before T_1.

    x -> S_1 -> P + e -> T_1 -> P^-1 -> S_2 -> P -> T_2 -> ...

All that happens between T_1 and the last T is blocks, and changes of layout that undo each other.
So what the blocks add, seen in the layout of T, is

    R = T_out - (T_in - P(S_out - S_in))        T_in enters T_1, T_out leaves the last T

with S_in, S_out around S_1 alone: two blocks are watched, however many there are. To add up what
each block adds took 5 % of the demo's computed step, and to hold the streams for it 3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...memory.device_slots import View
from ...models import BlockList, BlockRun
from ...models.block_calls import version
from .block_stand_ins import StandIns

Video = tuple[int, int]


class InterleavedList:
    """Keeps what enters and leaves the list's first block, until the next list begins.

    Where the next list does not run at all, as in a Latte that makes a single image, the blocks
    follow each other directly, and their residual is what they add from first to last.
    """

    taps: Sequence[str] = ()

    def __init__(self, blocks: BlockList, modules: Mapping[int, nn.Module]) -> None:
        self.blocks = blocks
        self.stand_ins = StandIns(blocks, modules)
        self.begin((1, 1))

    def begin(self, video: Video) -> None:
        """A computed forward of (videos, frames) begins."""
        self._video = video
        self.written_in_place = False
        self.release()

    def release(self) -> None:
        """The next list has begun, or the forward is over."""
        self.ran_alone = False
        self._x_in: list[Tensor] = []
        self._x_out: list[Tensor] = []
        self._versions: list[int] = []

    def before(self, run: BlockRun) -> None:
        if run.block is self.stand_ins.first and not self._x_in:
            self._x_in = [run.arguments[stream.parameter] for stream in self.blocks.streams]
            self._versions = [version(x) for x in self._x_in]

    def after(self, run: BlockRun) -> None:
        if not self._x_in:
            return
        self._x_out = [stream.read(run.output) for stream in self.blocks.streams]
        self.written_in_place |= self._versions != [version(x) for x in self._x_in]
        self.ran_alone = run.block is self.stand_ins.last

    def around(self, stream: int) -> tuple[Tensor, Tensor]:
        """What left the last block that was watched, and what entered the first, each in four
        dimensions."""
        x_out, x_in = self._x_out[stream], self._x_in[stream]
        split = self.blocks.split
        return split(x_out, stream, self._video), split(x_in, stream, self._video)

    def begin_next(self, streams: Sequence[Tensor], view: Callable[[int], View]) -> list[Tensor]:
        """T_in - P(S_out - S_in) for each T_in of `streams`, which `view` gives four dimensions."""
        if not self._x_out:
            return list(streams)
        results = [torch.empty_like(x) for x in streams]
        for index, (x, result) in enumerate(zip(streams, results, strict=True)):
            split, (x_out, x_in) = view(index), self.around(index)
            # In this order little is lost in half precision: the first difference is just e.
            torch.sub(split(x), x_out, out=split(result)).add_(x_in)
        self.release()
        return results
