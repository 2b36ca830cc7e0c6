"""Motion on shards: the pairs of tokens of one rank and of two ranks are all pairs of the video."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from adacache_kernels import ops
from adacache_kernels.engine.ranks.shard import Shard, check_frames, shard_of, tokens_of
from adacache_kernels.models.layout import Layout
from adacache_kernels.models.other_libraries.rank_groups import RankGroup
from tests.support.ranks import run_ranks

ROWS, FRAMES, TOKENS, CHANNELS = 2, 6, 10, 4


class Group:
    """A process group as far as a shard needs it."""

    def __init__(self, rank: int = 0) -> None:
        self._rank = rank

    def rank(self) -> int:
        return self._rank


def group(rank: int = 0) -> RankGroup:
    return RankGroup(Group(rank), "shards", "this test")


def residual() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, FRAMES * TOKENS, CHANNELS, generator=generator)


def whole_sums(strides: tuple[int, ...]) -> Tensor:
    """Return the motion sums `[B, 2 * strides]` of the whole video."""
    frames = residual().view(ROWS, FRAMES, TOKENS, CHANNELS)
    slot = torch.empty_like(frames)
    sums = ops.distance_update(slot, frames, strides=strides, slot_holds="nothing")
    return sums.sum(dim=1)[:, 3:]


def sums_of_rank(lengths: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """Return the motion sums of this rank's shard, with its boundary."""
    rank = dist.get_rank()
    groups = RankGroup(dist.group.WORLD, "shards", "this test")
    shard = shard_of((ROWS, FRAMES), groups, lengths, strides)
    start = sum(lengths[:rank])
    own = residual()[:, start : start + lengths[rank]].contiguous()
    view = own.view(ROWS, shard.video[1], -1, CHANNELS)
    update = ops.distance_update(
        torch.empty_like(view), view, strides=shard.strides, slot_holds="nothing"
    )
    assert shard.boundary is not None
    return update.sum(dim=1)[:, 3:] + shard.boundary.sums(own)


@pytest.mark.parametrize(
    ("lengths", "strides"),
    [
        ((30, 30), (1,)),  # Whole frames.
        ((25, 35), (1, 2)),  # Half frames.
        ((15, 15, 15, 15), (1, 3)),  # Pairs of ranks that are no neighbours.
        ((7, 13, 19, 21), (2,)),  # A rank with less than a frame, and no common divisor.
    ],
)
def test_shards_have_the_motion_of_the_whole_video(
    lengths: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    found = sum(run_ranks(len(lengths), sums_of_rank, lengths, strides))
    expected = whole_sums(strides)
    # The op adds at most 240 terms a row in float32; a missing pair changes a sum by 2 % or more.
    assert torch.allclose(found, expected, rtol=240 * 2**-24)


def test_a_shard_is_divided_so_that_a_stride_is_whole() -> None:
    # A frame of Wan at 480p has 1560 tokens, and 21 frames on 8 ranks make shards of 4095.
    shard = shard_of((1, 21), group(), [4095] * 8, (1,))
    assert shard.video == (1, 21)
    assert shard.strides == (8,)
    tokens = shard.boundary and shard.boundary.distances
    assert tokens == (1560,)


def test_without_motion_a_shard_has_no_frames() -> None:
    assert shard_of((2, 21), group(), [33, 31], ()) == Shard((2, 1), ())


def test_padding_is_named() -> None:
    with pytest.raises(ValueError, match="do not divide into 6 frames, for example because of pad"):
        shard_of((1, 6), group(), [31, 31], (1,))


def test_a_stride_as_long_as_the_video_is_refused() -> None:
    with pytest.raises(ValueError, match="the video has 3 frames of tokens, so a stride may be 1"):
        shard_of((1, 3), group(), [30, 30], (3,))


@pytest.mark.parametrize(
    ("layout", "shape", "tokens"),
    [
        (Layout.FRAME_MAJOR, (2, 60, 4), 60),
        (Layout.UNBATCHED, (60, 4), 60),
        (Layout.TOKENS_FIRST, (60, 2, 4), 60),
        (Layout.FRAMES_IN_BATCH, (12, 10, 4), None),
        (Layout.GRID, (2, 6, 5, 2, 4), None),
    ],
)
def test_the_sequence_of_tokens(layout: Layout, shape: tuple[int, ...], tokens: int | None) -> None:
    assert tokens_of(torch.empty(shape), layout) == tokens


def test_frames_that_are_cut_inside_of_the_model_are_refused() -> None:
    check_frames(group(), (2, 6), torch.empty(12, 5, 4), Layout.FRAMES_IN_BATCH, (1,))
    check_frames(group(), (2, 6), torch.empty(10, 6, 4), Layout.TOKENS_IN_BATCH, (1,))
    with pytest.raises(
        ValueError, match="gives the blocks of this rank 3 frames, and the call has 6"
    ):
        check_frames(group(), (2, 6), torch.empty(6, 10, 4), Layout.FRAMES_IN_BATCH, ())
