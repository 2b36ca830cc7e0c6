"""The part of a video that a rank holds, and how motion is measured on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...models.layout import Layout
from ...models.other_libraries.rank_groups import RankGroup
from .boundary import Boundary

TOKEN_DIMENSIONS = {Layout.FRAME_MAJOR: 1, Layout.UNBATCHED: 0, Layout.TOKENS_FIRST: 0}
"""The dimension of the tokens of a video, in layouts in which they form one sequence."""


@dataclass(frozen=True)
class Shard:
    """The part of a batch of videos in one forward call of this rank.

    Args:
        video: the number of videos, and of groups of equally many tokens in each. For a whole video
            these groups are its frames.
        strides: the frame strides of the motion sums, in such groups.
        boundary: the pairs of tokens of which another rank has the earlier one, None if there are
            none.
        padding: the tokens at the end of each frame that are no part of the video.
    """

    video: tuple[int, int]
    strides: tuple[int, ...]
    boundary: Boundary | None = None
    padding: int = 0


def shard_of(
    video: tuple[int, int],
    group: RankGroup,
    lengths: Sequence[int | None],
    strides: Sequence[int],
) -> Shard:
    """Return the shard of a rank that holds a contiguous part of the sequence of tokens.

    A token and the token at the same place `s` frames later lie `s * S` tokens apart, with `S`
    tokens in a frame. A shard may begin and end inside a frame. So it is divided into groups of
    `gcd(own, S)` tokens: the stride is then a whole number of groups.

    Args:
        video: the number of videos, and of frames in each whole video.
        group: the ranks.
        lengths: the tokens of the shard of every rank; None if they are no sequence.
        strides: frame strides of the motion sums; () without motion regularization.

    Raises:
        ValueError: a stride is not shorter than the video, or the frames are not equal or not
            known.
    """
    rows, frames = video
    if not strides:
        return Shard((rows, 1), ())
    known = [length for length in lengths if length is not None]
    if group.cut == "unknown" or len(known) < len(lengths):
        raise ValueError(unknown_cut(group))
    tokens, rest = divmod(sum(known), frames)
    if rest:
        raise ValueError(
            f"apply_moreg=True: the shards have {known} tokens, which do not divide into "
            f"{frames} frames, for example because of padding; set apply_moreg=False"
        )
    if any(stride >= frames for stride in strides):
        raise ValueError(
            f"moreg_strides={list(strides)}: the video has {frames} frames of tokens, so a stride "
            f"may be 1 to {frames - 1}; or set apply_moreg=False"
        )
    own = known[group.group.rank()]
    together = math.gcd(own, tokens)
    boundary = Boundary(group, tuple(known), tuple(stride * tokens for stride in strides))
    in_groups = tuple(stride * tokens // together for stride in strides)
    return Shard((rows, own // together), in_groups, boundary)


def check_frames(
    group: RankGroup, video: tuple[int, int], x: Tensor, layout: Layout, strides: Sequence[int]
) -> None:
    """Check that each shard has some tokens of every frame, in a layout that is no sequence.

    Args:
        group: the ranks.
        video: the number of videos, and of frames in each.
        x: the video stream of this rank.
        layout: its layout.
        strides: frame strides of the motion sums; () without motion regularization.

    Raises:
        ValueError: the shard has other frames than the call, or motion needs frames that are not
            known.
    """
    if strides and group.cut == "unknown":
        raise ValueError(unknown_cut(group))
    rows, frames = video
    found = {
        Layout.FRAMES_IN_BATCH: x.shape[0] // rows,
        Layout.TOKENS_IN_BATCH: x.shape[1],
        Layout.FRAMES: x.shape[1],
        Layout.GRID: x.shape[1],
        Layout.GRID_FIRST: x.shape[0],
    }[layout]
    if found != frames:
        raise ValueError(
            f"{group.origin} gives the blocks of this rank {found} frames, and the call has "
            f"{frames}, so the frames are cut inside of the model, which cannot be cached: cut the "
            "tokens of each frame, or do not call patch()"
        )


def unknown_cut(group: RankGroup) -> str:
    """Return the message for motion on shards whose frames are not known."""
    return (
        f"apply_moreg=True: {group.origin} cuts the video so that it is not known which tokens "
        "of two ranks belong to the same place; set apply_moreg=False"
    )


def padding_on_rank(group: RankGroup, padding: int, own: int) -> int:
    """Return the padding tokens of each frame that lie on this rank.

    Args:
        group: the ranks, each with some tokens of every frame.
        padding: the padding tokens of a frame on all ranks; the last ranks have them.
        own: the tokens of a frame on this rank.
    """
    after: int = (group.group.size() - 1 - group.group.rank()) * own
    return min(max(padding - after, 0), own)


def tokens_of(x: Tensor, layout: Layout) -> int | None:
    """Return the length of the sequence of tokens of a stream; None in other layouts."""
    dimension = TOKEN_DIMENSIONS.get(layout)
    is_sequence = dimension is not None and x.ndim == layout.value.count(",") + 1
    return x.shape[dimension] if is_sequence and dimension is not None else None
