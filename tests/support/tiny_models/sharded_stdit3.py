"""STDiT3 whose frames are cut over ranks, as in Open-Sora and VideoSys.

Each rank holds some tokens of every frame. Temporal attention needs no others. Around the attention
in space, the ranks exchange tokens of a frame for whole frames.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.support.tiny_models.original_parts import CHANNELS, TOKENS
from tests.support.tiny_models.original_stdit3 import STDiT3, STDiT3Block


class ShardedSTDiT3(STDiT3):
    """STDiT3 over the ranks of a group; with `of_rows` also over those with other batch rows.

    Args:
        block: the class of the blocks.
        of_shards: the group that cuts each frame; None: whole frames.
        of_rows: the group over which the batch rows are split; None: all rows.
    """

    def __init__(
        self, block: type[STDiT3Block], of_shards: Any = None, of_rows: Any = None
    ) -> None:
        super().__init__(block)
        self._of_shards, self._of_rows = of_shards, of_rows
        self._count = 1 if of_shards is None else of_shards.size()
        self.padding = -TOKENS % self._count
        for each in self.spatial_blocks if self._count > 1 else ():
            each.in_frames = _Exchange(each.attn, of_shards, self.padding)  # type: ignore[assignment]

    def forward(
        self, x: Tensor, timestep: Tensor, y: Tensor, mask: Any = None, x_mask: Any = None
    ) -> Tensor:
        if self._of_rows is None:
            return super().forward(x, timestep, y, mask, x_mask)
        rank, count = self._of_rows.rank(), self._of_rows.size()
        x, timestep, y = (value.chunk(count)[rank] for value in (x, timestep, y))
        return torch.cat(_all(super().forward(x, timestep, y), self._of_rows))

    def split(self, frames: Tensor) -> Tensor:
        if self._count > 1:
            frames = nn.functional.pad(frames, (0, 0, 0, self.padding))
            frames = frames.chunk(self._count, dim=2)[self._of_shards.rank()]
        return frames.flatten(1, 2)

    def gathered(self, tokens: Tensor, T: int) -> Tensor:
        if self._count == 1:
            return tokens
        frames = torch.cat(_all(tokens.view(len(tokens), T, -1, CHANNELS), self._of_shards), dim=2)
        return frames[:, :, :TOKENS].flatten(1, 2)


class _Exchange:
    """The attention in frames `[B, T, S / n, C]`, of which n ranks hold parts."""

    def __init__(self, attention: nn.Module, group: Any, padding: int) -> None:
        self._attention, self._group, self._padding = attention, group, padding

    def __call__(self, frames: Tensor) -> Tensor:
        whole = self._switched(frames, 1, 2)[:, :, :TOKENS]
        mixed = self._attention(whole.flatten(0, 1)).view(whole.shape)
        return self._switched(nn.functional.pad(mixed, (0, 0, 0, self._padding)), 2, 1)

    def _switched(self, x: Tensor, scattered: int, gathered: int) -> Tensor:
        sent = [part.contiguous() for part in x.chunk(self._group.size(), dim=scattered)]
        received = [torch.empty_like(part) for part in sent]
        dist.all_to_all(received, sent, group=self._group)
        return torch.cat(received, dim=gathered)


def _all(x: Tensor, group: Any) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x.contiguous(), group=group)
    return parts
