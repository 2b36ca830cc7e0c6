"""Measure the motion between tokens that two ranks hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ...models.other_libraries.rank_groups import RankGroup
from .agreement import unreachable


@dataclass(frozen=True)
class Boundary:
    """The pairs of tokens whose earlier token lies on another rank.

    Each rank sends the last tokens of its shard to the ranks that hold the later token of the pair.
    That is one exchange for each frame stride, of at most `distance` tokens a video.

    Args:
        group: the ranks, each with a contiguous part of the sequence of tokens.
        lengths: the tokens of each rank.
        distances: for each frame stride, the tokens from the earlier to the later token of a pair.
    """

    group: RankGroup
    lengths: tuple[int, ...]
    distances: tuple[int, ...]

    def sums(self, residual: Tensor) -> Tensor:
        """Return the motion sums of these pairs, float32 `[B, 2 * distances]`.

        For each distance they are `sum |p - e|` and `sum |p| + sum |e|`, with the earlier token `e`
        and the later token `p`.

        Args:
            residual: `[B, L, C]`, the residual of this rank's shard of `L` tokens.

        Raises:
            RuntimeError: a rank cannot be reached.
        """
        columns = [self._sums_at(residual, distance) for distance in self.distances]
        return torch.cat(columns, dim=1).float()

    def _sums_at(self, residual: Tensor, distance: int) -> Tensor:
        rank, starts = self.group.group.rank(), [0, *accumulate(self.lengths)]
        own = range(starts[rank], starts[rank + 1])
        needed = [self._earlier(starts, other, distance) for other in range(len(self.lengths))]
        sent = [_common(own, earlier) for earlier in needed]
        held = [range(starts[other], starts[other + 1]) for other in range(len(self.lengths))]
        received = [len(_common(each, needed[rank])) for each in held]
        tokens = residual.transpose(0, 1)
        parts = [tokens[part.start - own.start : part.stop - own.start] for part in sent]
        outgoing = torch.cat(parts).contiguous()
        earlier = outgoing.new_empty(sum(received), *outgoing.shape[1:])
        try:
            torch.distributed.all_to_all_single(
                earlier, outgoing, received, list(map(len, sent)), group=self.group.group
            )
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(unreachable(self.group, str(error))) from error
        first = needed[rank].start + distance - own.start
        later = tokens[first : first + len(earlier)] if len(earlier) else tokens[:0]
        earlier, later = earlier.double(), later.double()
        change = (later - earlier).abs().sum(dim=(0, 2))
        return torch.stack([change, (later.abs() + earlier.abs()).sum(dim=(0, 2))], dim=1)

    @staticmethod
    def _earlier(starts: Sequence[int], rank: int, distance: int) -> range:
        """Return the earlier tokens of the pairs whose later token this rank holds."""
        start, stop = starts[rank], starts[rank + 1]
        return range(max(0, start - distance), max(0, min(start, stop - distance)))


def _common(a: range, b: range) -> range:
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))
