"""Reuse decided in the middle of a forward: by the first block's residual, or by its input."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...engine.user_warnings import UserWarnings
from ...models import Adapter
from ...schedule import Decision
from ..base import ChangePolicy
from ..counters import Counters
from .block_visits import BlockVisit, places_of, visited
from .chain_residuals import IN_PLACE, BlockBranch, BlockForward, ResidualCapture, ResidualReplay
from .reuse_modules import Original

Watch = Callable[[BlockVisit, Mapping[str, Any]], Tensor]


class ChangeReuse:
    """Runs forwards whose rest is reused where something has changed little.

    The number is read where it is made, for which the host waits.

    Args:
        model: the transformer.
        adapter: what is known of it.
        make_policy: from the number of steps to the policy of a generation.
        watch: from the first block and its arguments to what is compared, before the block runs,
            with the same in the step before. None: the first block runs and its residual is
            compared with that of the last computed step.
    """

    by_timestep = False

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        make_policy: Callable[[int], ChangePolicy],
        notices: UserWarnings,
        watch: Watch | None = None,
    ) -> None:
        self._model, self._notices = model, notices
        self.places = places_of(model, adapter)
        self._make_policy, self._watch = make_policy, watch
        self._first = self.places[0]
        if len(self.places) < 2:
            raise ValueError(f"{type(model).__name__} has one block, so that there is no rest")
        rest = self.places if watch is not None else self.places[1:]
        self._keys = frozenset(place.key for place in rest)

    def begin(self, num_steps: int, tally: Counters) -> None:
        self._policy, self._tally = self._make_policy(num_steps), tally

    def branch(self, name: str) -> BlockBranch:
        return BlockBranch(name)

    def begin_step(
        self,
        step: int,
        _timestep: float | None,
        _branches: Mapping[str, BlockBranch],
        *,
        guided: bool,
    ) -> None:
        self._step = step
        self._decided: bool | None = None
        """Whether the step is reused; None until its first branch knows."""

    def run(
        self,
        branch: BlockBranch,
        _arguments: Mapping[str, Any],
        video: tuple[int, int],
        original: Original,
    ) -> Any:
        recording, adding = ResidualCapture(self._keys, video), ResidualReplay(branch.chains, video)
        forward = BlockForward(self._tally, self._step, recording, adding, ())

        def decide(seen: Tensor) -> None:
            if self._decided is None:
                self._decided = self._decide(branch, seen)
            if self._decided and not branch.chains:
                self._tally.missed(branch.name, self._step)
            elif self._decided:
                forward.skipped = self._keys
            # An input is compared with that of the step before, a residual with that of the last
            # computed step.
            if self._watch is not None or not forward.skipped:
                branch.watched = seen

        def before(place: BlockVisit, arguments: Mapping[str, Any]) -> None:
            if place is self._first and self._watch is not None:
                decide(self._watch(place, arguments))

        def after(place: BlockVisit, arguments: Mapping[str, Any], output: Any) -> None:
            if place is self._first and self._watch is None:
                entered, left = place.entering(arguments)[0], place.leaving(output)[0]
                assert entered is not None and left is not None
                decide(left - entered)

        forward.before, forward.after = before, after
        with visited(self._model, self.places, forward.visit):
            output = original()
        if not forward.skipped:
            chains = recording.chains()
            if chains is None:
                self._notices.warn("in place", IN_PLACE)
            branch.chains = chains or {}
        return output

    def _decide(self, branch: BlockBranch, seen: Tensor) -> bool:
        change = None
        if branch.watched is not None and branch.chains and self._policy.asks(self._step):
            change = self._read(relative_change(seen, branch.watched))
            self._tally.decisions[self._step] = Decision(self._step, 1, change, change, 1.0)
        return self._policy.reuses(self._step, change)

    def _read(self, value: Tensor) -> float:
        start = time.perf_counter()
        number = float(value)
        self._tally.waits.append(time.perf_counter() - start)
        return number


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """mean |now - before| / mean |before|, in float32."""
    before = before.float()
    return (now.float() - before).abs().mean() / before.abs().mean()
