"""The sums that several ranks agree on, and the decisions that follow from them.

`ADACACHE_DECISIONS=10000` makes that many decisions at a threshold, as before a release.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.engine.ranks.agreement import agreed_sums
from adacache_kernels.models.other_libraries.rank_groups import RankGroup, Role
from tests.support.ranks import run_ranks

DECISIONS = int(os.environ.get("ADACACHE_DECISIONS", "2000"))
# The threshold lies where float32 has a spacing of 2**-24 relative to the distance.
CODEBOOK = torch.tensor([[0.25, 1.0], [6.0, 1.0]])


def group_of(role: Role) -> RankGroup:
    return RankGroup(dist.group.WORLD, role, "this test")


def sums_of(rank: int, columns: int = 5) -> Tensor:
    """Return sums `[1, 4, 3, columns]` that differ from rank to rank."""
    return torch.rand(1, 4, 3, columns, generator=torch.Generator().manual_seed(rank)) + rank


def agreed_on_rank(role: Role, videos: int) -> tuple[Tensor, int]:
    return agreed_sums([group_of(role)], sums_of(dist.get_rank()), videos, has_previous=True)


def test_shards_are_added_over_the_ranks() -> None:
    expected = torch.stack([sums_of(rank).double().sum(2) for rank in range(4)], dim=2)
    for sums, videos in run_ranks(4, agreed_on_rank, "shards", 2):
        assert videos == 2
        assert torch.equal(sums, expected.float())


def test_the_first_of_replicas_decides() -> None:
    expected = sums_of(0).double().sum(2, keepdim=True).float()
    for sums, videos in run_ranks(2, agreed_on_rank, "replicas", 2):
        assert videos == 2
        assert torch.equal(sums, expected)


def test_videos_of_all_ranks_decide_together() -> None:
    for sums, videos in run_ranks(2, agreed_on_rank, "videos", 2):
        assert videos == 4
        own = [sums_of(rank).double().sum(2).float()[0] for rank in range(2)]
        # Two rows with guidance for each of two videos on each rank; row r is of video r % 4.
        for video, (rank, row) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            guided = sums[0, video::4, 0]
            assert torch.equal(guided, own[rank][row::2])


def without_previous_on_one_rank() -> list[float]:
    has_previous = dist.get_rank() == 0
    sums, _ = agreed_sums([group_of("shards")], sums_of(0), 1, has_previous=has_previous)
    return [decide(sums, has_previous=has_previous), float(sums.isnan().any())]


def test_if_one_rank_has_nothing_to_compare_with_all_compute_the_next_step() -> None:
    assert run_ranks(2, without_previous_on_one_rank) == [[2.0, 1.0], [2.0, 1.0]]


def decide(sums: Tensor, *, has_previous: bool = True) -> float:
    """Return the next computed step after step 1, by the op on this rank."""
    state = ops.new_state("cpu")
    ops.decide(state, sums, CODEBOOK, ops.DecideSettings(), 1, has_previous=has_previous)
    return float(state[ops.State.NEXT_STEP])


def near_the_threshold(count: int) -> Tensor:
    """Return sums `[count, 1, 1, 1, 3]` of this rank: all ranks' distances straddle 0.25."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    size = 1 + torch.rand(count, generator=generator)
    # Of the last bits only, so that adding in another order decides.
    change = size * (0.25 + (torch.rand(count, generator=generator) - 0.5) * 2**-23)
    return torch.stack([change, size, torch.zeros(count)], dim=1).view(count, 1, 1, 1, 3)


def gathered(sums: Tensor) -> Tensor:
    return agreed_sums([group_of("shards")], sums, 1, has_previous=True)[0]


def all_reduced(sums: Tensor) -> Tensor:
    """Return the sum by an all-reduce that rounds otherwise on one rank, as some algorithms do."""
    total = sums.sum(2, keepdim=True)
    dist.all_reduce(total)
    if dist.get_rank() == 1:
        total[..., 0] = torch.nextafter(total[..., 0], torch.tensor(torch.inf))
    return total


def decisions_of_rank(reduced: str, count: int) -> list[float]:
    reduce = {"gathered": gathered, "all_reduced": all_reduced}[reduced]
    return [decide(reduce(sums)) for sums in near_the_threshold(count)]


def test_decisions_at_a_threshold_do_not_diverge() -> None:
    first, second = run_ranks(2, decisions_of_rank, "gathered", DECISIONS)
    assert first == second
    # Both outcomes occur, so the decisions lie at the threshold.
    assert 0.2 < first.count(7.0) / DECISIONS < 0.8


def test_without_the_agreement_they_diverge() -> None:
    first, second = run_ranks(2, decisions_of_rank, "all_reduced", 1000)
    assert first != second


def messages_of_rank(rows: int) -> list[tuple[str, int]]:
    """Return name and bytes a rank of each collective of one decision."""
    seen: list[tuple[str, int]] = []
    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    original = getattr(dist, name)

    def counted(output: Tensor, own: Tensor, **kwargs: Any) -> Any:
        seen.append(("gather", own.numel() * own.element_size()))
        return original(output, own, **kwargs)

    setattr(dist, name, counted)
    agreed_sums([group_of("shards")], torch.ones(1, rows, 7, 5), 1, has_previous=True)
    return seen


@pytest.mark.parametrize("rows", [1, 4])
def test_a_decision_makes_one_message_of_20_bytes_a_row(rows: int) -> None:
    for seen in run_ranks(2, messages_of_rank, rows):
        assert seen == [("gather", 20 * rows)]


def without_group() -> str:
    group = group_of("shards")
    dist.destroy_process_group()
    with pytest.raises(RuntimeError) as error:
        agreed_sums([group], torch.ones(1, 1, 1, 3), 1, has_previous=True)
    return str(error.value)


def test_a_destroyed_group_is_an_error() -> None:
    for message in run_ranks(2, without_group):
        assert "could not agree on the next computed step" in message
        assert "this test" in message
