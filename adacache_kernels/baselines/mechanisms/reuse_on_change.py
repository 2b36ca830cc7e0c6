"""Reuse the rest of a step if the first block's residual or input has changed little."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...engine.reports.user_warnings import UserWarnings
from ...models import Adapter
from ...models.block_stand_in import BlockCall
from ...schedule import Decision
from ..base import ChangePolicy
from ..counters import Counters
from .block_visits import NumberedBlock
from .chain_residuals import (
    BlockBranch,
    BlockForward,
    ChainMechanism,
    ResidualCapture,
    ResidualReplay,
)
from .mechanism import Method, Original, Step, Video

Watch = Callable[[BlockCall], Tensor]
"""Returns the tensor to compare from the call of the first block."""


class ChangeReuse(ChainMechanism):
    """A mechanism that reuses the rest of a step if a tensor has changed little.

    The change is read in the middle of the forward call, where the host waits for the device.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        config: makes the policy of each generation.
        warnings: the warnings of the model.
        watch: returns the tensor that is compared with that of the step before, before the first
            block runs. None: the first block runs, and its residual is compared with that of the
            last computed step.

    Raises:
        ValueError: the model has a single block.
    """

    decides_by_content = True

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: Method[ChangePolicy],
        warnings: UserWarnings,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(model, adapter, warnings)
        if len(self.blocks) < 2:
            raise ValueError(
                f"{type(model).__name__} has one block, so nothing is left to reuse after it"
            )
        self._config = config
        self._policy = config.policy(0)
        self.watch = watch
        self.reusable = frozenset(block.key for block in self.blocks[0 if watch else 1 :])
        self._reused: bool | None = None
        """The decision for the step, None until its first branch has made it."""

    def begin(self, num_steps: int, counters: Counters) -> None:
        """Begin a generation."""
        super().begin(num_steps, counters)
        self._policy = self._config.policy(num_steps)

    def begin_step(self, step: Step, branches: Mapping[str, BlockBranch]) -> None:
        """Begin a step; its first call decides."""
        super().begin_step(step, branches)
        self._reused = None

    def run(self, branch: BlockBranch, video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output."""
        forward = ChangeForward(self, branch, self._counters, self._step, video)
        output = self._visit_blocks(forward, original)
        if not forward.skipped:
            branch.chains = self._captured(forward)
        return output

    def reuses(self, branch: BlockBranch, compared: Tensor) -> bool:
        """Return the decision for this branch; the first branch decides for the whole step."""
        if self._reused is None:
            self._reused = self._policy.reuses(self._step, self._change(branch, compared))
        if self._reused and not branch.chains:
            self._counters.missed(branch.name, self._step)
        return self._reused and bool(branch.chains)

    def _change(self, branch: BlockBranch, compared: Tensor) -> float | None:
        """Return the relative change; None if it is not needed or there is nothing to compare."""
        before = branch.compared_with
        if before is None or not branch.chains or not self._policy.asks(self._step):
            return None
        change = relative_change(compared, before)
        start = time.perf_counter()
        number = float(change)
        self._counters.waits.append(time.perf_counter() - start)
        self._counters.decisions[self._step] = Decision(self._step, 1, number, number, 1.0)
        return number


class ChangeForward(BlockForward):
    """One forward call in which the first block decides for the others.

    Args:
        mechanism: makes the decision.
        branch: the state of the call's branch.
        counters: of the generation.
        step: counted from 1.
        video: videos and frames of the call.
    """

    def __init__(
        self,
        mechanism: ChangeReuse,
        branch: BlockBranch,
        counters: Counters,
        step: int,
        video: Video,
    ) -> None:
        capture = ResidualCapture(mechanism.reusable, video)
        super().__init__(counters, step, capture, ResidualReplay(branch.chains, video))
        self._mechanism, self._branch = mechanism, branch

    def before(self, block: NumberedBlock, call: BlockCall) -> None:
        """Compare the first block's input, if that is what the mechanism watches."""
        watch = self._mechanism.watch
        if watch is not None and block is self._mechanism.blocks[0]:
            compared = watch(call)
            self._decide(compared)
            self._branch.compared_with = compared

    def after(self, block: NumberedBlock, call: BlockCall, output: Any) -> None:
        """Compare the first block's residual with that of the last computed step."""
        if self._mechanism.watch is None and block is self._mechanism.blocks[0]:
            x_in, x_out = block.entering(call)[0], block.leaving(output)[0]
            assert x_in is not None and x_out is not None
            residual = x_out - x_in
            self._decide(residual)
            if not self.skipped:
                self._branch.compared_with = residual

    def _decide(self, compared: Tensor) -> None:
        if self._mechanism.reuses(self._branch, compared):
            self.skipped = self._mechanism.reusable


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """Return mean |now - before| / mean |before| in float32, for tensors of the same shape."""
    before = before.float()
    return (now.float() - before).abs().mean() / before.abs().mean()
