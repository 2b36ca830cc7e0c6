"""The model of Open-Sora 2.0 whose packed tokens are split over ranks, as ColossalAI does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.support.tiny_models.originals import MMDiTModel


class ShardedMMDiT(MMDiTModel):
    """The model over the ranks of a group: each has an equal part of the text and video tokens.

    The text comes first, so only the first ranks have some of it. The numbers of video tokens
    differ.
    """

    def __init__(self, group: Any) -> None:
        super().__init__()
        self._group = group
        config = SimpleNamespace(
            enable_sequence_parallelism=True, sequence_parallel_process_group=group
        )
        blocks: list[Any] = [*self.double_blocks, *self.single_blocks]
        for block in blocks:
            block.processor = SimpleNamespace(shard_config=config)
            block.attention = _WholeAttention(block.attention, group)
        self.forward = self.forward_of_shard  # type: ignore[method-assign]

    def forward_of_shard(self, img: Tensor, txt: Tensor, timesteps: Tensor) -> Tensor:
        rank, count, words = self._group.rank(), self._group.size(), txt.shape[1]
        own = (words + img.shape[1]) // count
        start, end = rank * own, (rank + 1) * own
        pe, vec = self.positions[:, start:end], self.times(timesteps)
        img = self.embed(img)[:, max(0, start - words) : end - words]
        txt = txt[:, start : min(end, words)]
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe)
        img = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            img = block(img, vec, pe)
        return self.head(_gathered(img, self._group)[:, words:])


class _WholeAttention(nn.Module):
    """The attention over the tokens of all ranks, for those of this rank."""

    def __init__(self, attention: nn.Module, group: Any) -> None:
        super().__init__()
        self._attention, self._group = attention, group

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self._attention(_gathered(x, self._group))
        return mixed.chunk(self._group.size(), dim=1)[self._group.rank()]


def _gathered(x: Tensor, group: Any) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, dim=1)
