"""Reuse a range of blocks in certain steps: fixed interval, delta-DiT, MagCache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...engine.reports.user_warnings import UserWarnings
from ...models import Adapter
from ..base import BlockPolicy, Blocks
from ..counters import Counters
from .block_visits import Key, NumberedBlock
from .chain_residuals import (
    BlockBranch,
    BlockForward,
    ChainMechanism,
    ResidualCapture,
    ResidualReplay,
)
from .mechanism import Method, Original, Step, Video


def check_range(
    blocks: list[NumberedBlock], name: str, selected: Blocks | None, model: str
) -> None:
    """Check that the model has the blocks that a setting selects.

    Args:
        blocks: all blocks of the model.
        name: name of the setting.
        selected: value of the setting.
        model: name of the model's class.

    Raises:
        ValueError: the model has fewer blocks.
    """
    count = blocks[-1].number + 1
    if selected is not None and max(selected[0] + 1, selected[1] or 0) > count:
        raise ValueError(f"{name} is {selected}; {model} has {count} blocks, numbered from 0")


class RangeReuse(ChainMechanism):
    """A mechanism that reuses a range of blocks in the steps that a policy selects.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        config: makes the policy of each generation.
        warnings: the warnings of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: Method[BlockPolicy],
        warnings: UserWarnings,
    ) -> None:
        super().__init__(model, adapter, warnings)
        self._config = config
        self._policy = config.policy(0)
        self._skipped: frozenset[Key] = frozenset()

    def begin(self, num_steps: int, counters: Counters) -> None:
        """Begin a generation."""
        super().begin(num_steps, counters)
        self._policy = self._config.policy(num_steps)

    def begin_step(self, step: Step, branches: Mapping[str, BlockBranch]) -> None:
        """Begin a step and decide for all branches whether blocks are reused."""
        super().begin_step(step, branches)
        self._skipped = self._keys(self._policy.reuses(self._step))
        # If the first branch has nothing to reuse, the step is computed in all branches.
        leader = next(iter(branches.values()))
        if self._skipped and leader.keys != self._skipped:
            self._counters.missed(leader.name, self._step)
            self._skipped = frozenset()
        if not self._skipped:
            self._policy.computed(self._step)

    def run(self, branch: BlockBranch, video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output."""
        skipped = self._skipped
        if skipped and branch.keys != skipped:
            self._counters.missed(branch.name, self._step)
            skipped = frozenset()
        stored = frozenset() if skipped else self._keys(self._policy.stores(self._step))
        capture, replay = ResidualCapture(stored, video), ResidualReplay(branch.chains, video)
        forward = BlockForward(self._counters, self._step, capture, replay, skipped)
        output = self._visit_blocks(forward, original)
        if not skipped:
            branch.chains = self._captured(forward)
            branch.keys = stored if branch.chains else frozenset()
        return output

    def _keys(self, selected: Blocks | None) -> frozenset[Key]:
        if selected is None:
            return frozenset()
        start, stop = selected
        return frozenset(
            block.key
            for block in self.blocks
            if block.number >= start and (stop is None or block.number < stop)
        )
