"""Reuse of whole blocks by step numbers: fixed interval, delta-DiT, MagCache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...engine.user_warnings import UserWarnings
from ...models import Adapter
from ..base import BlockPolicy, Blocks
from ..counters import Counters
from .block_visits import BlockVisit, Key, places_of, visited
from .chain_residuals import IN_PLACE, BlockBranch, BlockForward, ResidualCapture, ResidualReplay
from .reuse_modules import Original


def keys_of(places: list[BlockVisit], blocks: Blocks | None) -> frozenset[Key]:
    """The blocks of these numbers."""
    if blocks is None:
        return frozenset()
    start, stop = blocks
    return frozenset(
        place.key
        for place in places
        if place.number >= start and (stop is None or place.number < stop)
    )


def check_blocks(places: list[BlockVisit], name: str, blocks: Blocks | None, model: str) -> None:
    """Blocks that a setting names must be there.

    Raises:
        ValueError: names the setting and how many blocks the model has.
    """
    count = places[-1].number + 1
    if blocks is not None and max(blocks[0] + 1, blocks[1] or 0) > count:
        raise ValueError(f"{name} is {blocks}; {model} has {count} blocks, numbered from 0")


class RangeReuse:
    """Runs forwards in which a range of blocks adds what it added before.

    Args:
        model: the transformer.
        adapter: what is known of it.
        make_policy: from the number of steps to the policy of a generation.
    """

    by_timestep = False

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        make_policy: Callable[[int], BlockPolicy],
        notices: UserWarnings,
    ) -> None:
        self._model, self._notices = model, notices
        self.places = places_of(model, adapter)
        self._make_policy = make_policy

    def begin(self, num_steps: int, tally: Counters) -> None:
        self._policy, self._tally = self._make_policy(num_steps), tally

    def branch(self, name: str) -> BlockBranch:
        return BlockBranch(name)

    def begin_step(
        self,
        step: int,
        _timestep: float | None,
        branches: Mapping[str, BlockBranch],
        *,
        guided: bool,
    ) -> None:
        self._step = step
        self._skipped = keys_of(self.places, self._policy.reuses(step))
        # One decision for all branches: where the first has nothing to reuse, the step computes.
        leader = next(iter(branches.values()))
        if not self._skipped:
            self._policy.computed(step)
        elif leader.keys != self._skipped:
            self._tally.missed(leader.name, step)
            self._skipped = frozenset()
            self._policy.computed(step)

    def run(
        self,
        branch: BlockBranch,
        _arguments: Mapping[str, Any],
        video: tuple[int, int],
        original: Original,
    ) -> Any:
        skipped = self._skipped
        if skipped and branch.keys != skipped:
            self._tally.missed(branch.name, self._step)
            skipped = frozenset()
        kept = frozenset() if skipped else keys_of(self.places, self._policy.keeps(self._step))
        recording, adding = ResidualCapture(kept, video), ResidualReplay(branch.chains, video)
        forward = BlockForward(self._tally, self._step, recording, adding, skipped)
        with visited(self._model, self.places, forward.visit):
            output = original()
        if not skipped:
            chains = recording.chains()
            if chains is None:
                self._notices.warn("in place", IN_PLACE)
            branch.chains, branch.keys = chains or {}, kept if chains else frozenset()
        return output
