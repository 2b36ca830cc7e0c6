"""Make the sums of all ranks the same on every rank, so that all make the same decision.

Each rank gathers the sums of every rank of its group and adds them in the order of the ranks. A
gather copies bits and adds nothing, so all ranks have the same bits. An all-reduce would need no
more bytes, but its algorithm may round differently on each rank. Ranks near a threshold would then
decide differently and wait for each other forever.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.other_libraries.rank_groups import RankGroup


def agreed_sums(
    groups: Sequence[RankGroup], sums: Tensor, videos: int, *, has_previous: bool
) -> tuple[Tensor, int]:
    """Return sums that have the same bits on every rank, and the number of videos in them.

    Each group makes one collective of `4 * locations * rows * columns` bytes a rank.

    Args:
        groups: the groups, shards first.
        sums: float32 `[locations, rows, partials, columns]` of this rank.
        videos: the number of videos that the rows belong to.
        has_previous: True if this rank compared its residuals with stored ones. If it did not and
            another rank did, every rank computes the next step.

    Raises:
        RuntimeError: the ranks cannot be reached.
    """
    if not has_previous:
        sums = torch.full_like(sums, torch.nan)
    for group in groups:
        # Summed in float64 and rounded once: the relative error is 2**-24.
        own = sums.double().sum(dim=2).float()
        of_ranks = _gathered(group, own)
        if group.role == "shards":
            sums = of_ranks.permute(1, 2, 0, 3)
        elif group.role == "replicas":
            sums = of_ranks[0].unsqueeze(2)
        else:
            # Row r belongs to video r % videos, so the ranks of one row follow each other.
            sums = of_ranks.permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(2)
            videos *= len(of_ranks)
    return sums.contiguous(), videos


def _gathered(group: RankGroup, own: Tensor) -> Tensor:
    """Return a tensor of every rank, `[ranks, *own.shape]`, in the order of the group."""
    if not group_ranks(group):
        raise RuntimeError(unreachable(group, "the process group was destroyed"))
    result = own.new_empty(group.group.size(), *own.shape)
    distributed = torch.distributed
    # torch 2.13 has renamed the function, and warns of the old name.
    gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    try:
        gather(result, own.unsqueeze(0), group=group.group)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(unreachable(group, str(error))) from error
    return result


def unreachable(group: RankGroup, reason: str) -> str:
    """Return the message for ranks that do not answer."""
    return (
        f"the ranks {list(group_ranks(group))} of {group.origin} could not agree on the next "
        f"computed step: {reason}. Look for an error of another rank; on all of them, patch() the "
        "model with the same settings and make the same calls"
    )


def group_ranks(group: RankGroup) -> tuple[int, ...]:
    """Return the global ranks, or () if the group has been destroyed."""
    try:
        return group.ranks
    except (RuntimeError, ValueError, KeyError, AssertionError):
        return ()
