"""The ranks that decide together with this one, for one patched model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...config.adacache_config import AdaCacheConfig
from ...models import Adapter
from ...models.other_libraries.find_groups import find_rank_groups
from ...models.other_libraries.groups_of_libraries import padding_of_frames
from ...models.other_libraries.rank_groups import RankGroup, Role
from .agreement import agreed_sums
from .collective_watch import group_known
from .meeting import check_equal, meet
from .shard import (
    TOKEN_DIMENSIONS,
    Shard,
    check_frames,
    padding_on_rank,
    shard_of,
    tokens_of,
)

ROLE_NAMES: Mapping[Role, str] = {
    "shards": "with a shard of each video",
    "replicas": "with the same videos",
    "videos": "with videos of their own",
}
PACKAGE = __name__.partition(".")[0]
LONG = 64
"""Settings with a longer text, such as profiles, are compared by a hash."""


class Ranks:
    """The groups of ranks over which a model is spread, and how they decide as one.

    The hosts of the ranks meet when a branch of a generation begins. There they compare versions,
    settings and shapes. In the steps they communicate only where a distance is measured: one gather
    for each group.

    Args:
        model: the transformer.
        config: the settings.
        given: the process groups that the user gave, by role.
    """

    def __init__(
        self, model: nn.Module, config: AdaCacheConfig, given: Mapping[Role, Any] | None = None
    ) -> None:
        self._model = model
        self._config = config
        self._given = given or {}
        self.groups: tuple[RankGroup, ...] = ()
        """The groups as the last generation found them."""
        self._is_watched = False
        """True if a measured forward was searched for collectives. A dispatch mode makes compiled
        blocks run eagerly, so one forward has to be enough."""

    def begin_generation(self, *, is_recorded: bool) -> None:
        """Look for the groups; other libraries may have set them up since the last generation.

        Args:
            is_recorded: whether a calibration records the residuals.

        Raises:
            ValueError: a setting does not work with several ranks, or it is a calibration.
        """
        self.groups = find_rank_groups(self._model, self._given)
        if self.groups and self._config.decision == "graph":
            raise ValueError(
                f'decision="graph": the ranks of {self.groups[0].origin} exchange their sums in '
                "every measured step, which a graph does not contain; leave it out"
            )
        if self.groups and is_recorded:
            raise ValueError(
                f"the ranks of {self.groups[0].origin} hold parts of one video, and a calibration "
                "needs whole residuals: calibrate with whole videos on each rank, which torchrun "
                "shares out"
            )

    def describe(self) -> list[str]:
        """Return a text for each group."""
        return [
            f"{group.group.size()} ranks {ROLE_NAMES[group.role]} ({group.origin})"
            for group in self.groups
        ]

    @property
    def are_several(self) -> bool:
        """Return True if other ranks decide together with this one."""
        return bool(self.groups)

    @property
    def _of_shards(self) -> RankGroup | None:
        """Return the group whose ranks hold shards without some tokens of every frame."""
        found = (group for group in self.groups if group.role == "shards")
        return next((group for group in found if group.cut != "space"), None)

    def _on_this_rank(self, video: tuple[int, int]) -> tuple[int, int]:
        """Return the batch rows of a call that reach the blocks of this rank, and the frames."""
        rows, frames = video
        for group in self.groups:
            if group.splits_rows:
                rows = -(-rows // group.group.size())
        return rows, frames

    def shard_before(self, video: tuple[int, int], adapter: Adapter) -> Shard:
        """Return the shard of a call of a branch that has not met yet.

        No distance of such a call is compared, so its motion does not count.

        Args:
            video: videos of the call, and frames of the whole videos.
            adapter: the description of the model.
        """
        rows, frames = self._on_this_rank(video)
        is_cut = self._of_shards is not None and adapter.lists[0].layout in TOKEN_DIMENSIONS
        return Shard((rows, 1 if is_cut else frames), self._config.strides)

    def meet(self, video: tuple[int, int], num_steps: int, adapter: Adapter, x_in: Tensor) -> Shard:
        """Compare this rank with the others, once for each branch of a generation.

        Args:
            video: videos of the call, and frames of the whole videos.
            num_steps: the number of steps.
            adapter: the description of the model.
            x_in: the video stream that enters the first block.

        Returns:
            The shard of this rank.

        Raises:
            RuntimeError: a rank does not answer within the timeout of the group.
            ValueError: two ranks differ, or motion cannot be measured on such shards.
        """
        video = self._on_this_rank(video)
        layout = adapter.lists[0].layout
        tokens = tokens_of(x_in, layout)
        message = {**self._settings(), "steps": num_steps, "batch rows": video[0], "tokens": tokens}
        message["blocks"] = adapter.describe(self._model)
        shard = Shard(video, self._config.strides)
        for group in self.groups:
            messages = meet(group, message)
            names = [name for name in message if name != "tokens"]
            check_equal(group, messages, names)
            if group is self._of_shards and layout not in TOKEN_DIMENSIONS:
                check_frames(group, video, x_in, layout, self._config.strides)
            elif group is self._of_shards:
                lengths = [each["tokens"] for each in messages]
                shard = shard_of(video, group, lengths, self._config.strides)
            padding = padding_of_frames(group)
            if padding and tokens is not None:
                own = padding_on_rank(group, padding, tokens // video[1])
                shard = replace(shard, padding=own)
        return shard

    def union(self, own: Iterable[Sequence[object]]) -> list[list[Any]]:
        """Return the values that any rank has found, each once. All ranks have to call this.

        Args:
            own: the values of this rank: sequences of strings and numbers.
        """
        values = [list(value) for value in own]
        for group in self.groups:
            of_all = [value for each in meet(group, {"found": values}) for value in each["found"]]
            values = [value for i, value in enumerate(of_all) if value not in of_all[:i]]
        return values

    def agreed(self, sums: Tensor, videos: int, *, has_previous: bool) -> tuple[Tensor, int]:
        """Return sums that are the same on every rank, see `agreed_sums`."""
        return agreed_sums(self.groups, sums, videos, has_previous=has_previous)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Search a measured forward for collectives, once.

        Raises:
            ValueError: the forward communicates with ranks of an unknown group.
        """
        if self._is_watched:
            yield
            return
        with group_known(type(self._model).__name__, self.groups):
            yield
        self._is_watched = True

    def _settings(self) -> dict[str, Any]:
        values = self._config.to_dict()
        profile = self._config.loaded_profile
        values["profile"] = None if profile is None else profile.to_dict()
        return {
            "adacache_kernels": getattr(sys.modules[PACKAGE], "__version__", None),
            "torch": str(torch.__version__),
            "model": type(self._model).__name__,
            **{name: _compared(value) for name, value in values.items()},
        }


def _compared(value: object) -> object:
    """Return a value for comparison: itself if it is short, else a hash."""
    text = json.dumps(value, sort_keys=True, default=str)
    if len(text) <= LONG:
        return json.loads(text)
    return "sha256 " + hashlib.sha256(text.encode()).hexdigest()[:16]
