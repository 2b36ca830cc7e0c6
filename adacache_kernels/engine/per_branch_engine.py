"""The engine with `decide_for="branch"`: every guidance branch has an engine of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from .base import AdaCacheEngine
from .clocks.clock import Call, EngineClock
from .clocks.track_clock import BranchClock
from .forward_call import ForwardCall
from .reports.merge_summaries import merge_parallel, merge_videos, with_reasons
from .reports.summary import Summary


class PerBranchEngine(AdaCacheEngine):
    """Passes each call to the engine of its branch.

    Args:
        model: the transformer.
        config: the settings.
        clock: describes the generation.
        make: makes the engine of one branch, from its clock.
    """

    def __init__(
        self,
        model: nn.Module,
        config: AdaCacheConfig,
        clock: EngineClock,
        make: Callable[[EngineClock], AdaCacheEngine],
    ) -> None:
        super().__init__(model, config, clock)
        self._make = make
        self._branch_clock = BranchClock(clock)
        # Made now, so that wrong settings raise in `patch`. The first branch gets it.
        self._spare: AdaCacheEngine | None = make(self._branch_clock)
        self._engines: dict[str, AdaCacheEngine] = {}
        self._present: set[str] = set()
        """The branches of the present generation."""

    @property
    def reason_not_single(self) -> str:
        """Return the reason: each branch has an engine."""
        return 'decide_for="branch": each branch has an engine; patch without it'

    def join(self, call: Call) -> None:
        """Join a generation whose first call, `call`, was computed without the engines."""
        self._present.add(call.branch)
        self._engine_of(call.branch).join(call)

    def summary(self) -> Summary:
        """Return what happened in the last generation, with a summary for each branch."""
        by_branch = {name: self._engines[name].summary() for name in sorted(self._present)}
        if not by_branch:
            engine = self._spare or next(iter(self._engines.values()))
            return with_reasons(engine.summary(), self.user_warnings)
        whole = with_reasons(merge_parallel(list(by_branch.values())), self.user_warnings)
        videos = merge_videos(by_branch)
        return replace(whole, videos=videos, branches=list(by_branch), by_branch=by_branch)

    def _begin_generation(self) -> None:
        """Release the engines of branches that the last generation did not have."""
        for name in set(self._engines) - self._present:
            self._engines.pop(name).reset()
        self._present = set()

    def _forget_generation(self) -> None:
        for engine in self._engines.values():
            engine.reset()
        self._present = set()

    def _lose_residuals(self) -> None:
        for engine in self._engines.values():
            engine._lose_residuals()

    def _run(self, call: Call, forward: ForwardCall) -> Any:
        is_new = call.branch not in self._present
        self._present.add(call.branch)
        own = replace(call, first_in_step=True, first_in_generation=is_new)
        return self._engine_of(call.branch).run(own, forward)

    def _engine_of(self, branch: str) -> AdaCacheEngine:
        if branch not in self._engines:
            engine = self._spare or self._make(self._branch_clock)
            self.user_warnings.share_topics_with(engine.user_warnings)
            self._engines[branch] = engine
            self._spare = None
        return self._engines[branch]
