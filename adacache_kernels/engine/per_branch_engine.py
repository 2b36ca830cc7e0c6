"""`decide_for="branch"`: every branch of guidance by itself, with an engine of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..models.block_calls import Parameters
from .cache_context import current_context
from .clocks.clock import Call, StepClock
from .engine import Engine, Forward
from .merge_summaries import merge_parallel
from .per_video_engine import PerVideoEngine, SharedCall
from .summary import Summary


class PerBranchEngine:
    """Hands each call to its branch's engine; what an `Engine` is for all branches together.

    Args:
        model: the transformer.
        config: the settings.
        clock: tells steps and branches apart.
        make: the engine of a branch, from its clock.
    """

    def __init__(
        self,
        model: nn.Module,
        config: AdaCacheConfig,
        clock: StepClock,
        make: Callable[[StepClock], Engine | PerVideoEngine],
    ) -> None:
        self.model, self.config, self.clock = model, config, clock
        self._parameters = Parameters(model)
        self._shared = SharedCall(clock, calls=1)
        self._make = make
        # To check the settings, and for a summary before the first call.
        self._unused: Engine | PerVideoEngine | None = make(self._shared)
        self._engines: dict[str, Engine | PerVideoEngine] = {}
        self._begun: set[str] = set()

    def forward(self, original: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward call of the model, `original` being its own forward."""
        arguments = self._parameters.bind(args, kwargs)
        call = self.clock.next_call(current_context(), arguments)
        try:
            return self._engine_for(call).forward(original, args, kwargs)
        except BaseException:
            self.reset()
            raise

    def join(self, call: Call) -> None:
        """The generation has begun without the engines: this call was computed."""
        self._engine_for(call).join(call)

    def reset(self) -> None:
        """Forget the generation and give its memory back; the next call begins a new one."""
        self.clock.restart()
        for engine in self._engines.values():
            engine.reset()
        self._begun = set()

    def summary(self) -> Summary:
        """What happened in the last generation, with each branch's own."""
        by_branch = {name: self._engines[name].summary() for name in sorted(self._begun)}
        if not by_branch:
            engine = self._unused or next(iter(self._engines.values()))
            return engine.summary()
        whole = merge_parallel(list(by_branch.values()))
        return replace(whole, videos=[], branches=list(by_branch), by_branch=by_branch)

    def _engine_for(self, call: Call | None) -> Engine | PerVideoEngine:
        """Of a call that is the first of its step there, and where the branch first appears the
        first of its generation."""
        if call is None:
            self._shared.call = None
            return self._take("")
        if call.first_in_generation:
            for name in set(self._engines) - self._begun:
                self._engines.pop(name).reset()
            self._begun = set()
        is_new = call.branch not in self._begun
        self._begun.add(call.branch)
        self._shared.call = replace(call, first_in_step=True, first_in_generation=is_new)
        return self._take(call.branch)

    def _take(self, branch: str) -> Engine | PerVideoEngine:
        if branch not in self._engines:
            self._engines[branch] = self._unused or self._make(self._shared)
            self._unused = None
        return self._engines[branch]
