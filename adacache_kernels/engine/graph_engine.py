"""The engine with `decision="graph"`: the device chooses to compute or to reuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter
from .clocks.clock import Call, EngineClock
from .decision.step_graphs import StepGraphs
from .engine import Engine
from .forward_call import ForwardCall
from .ranks.ranks import Ranks
from .reports.summary import Summary
from .residuals.guidance_branch import GuidanceBranch

Run = Callable[[GuidanceBranch, Call, ForwardCall], Any]


class GraphEngine(Engine):
    """An engine whose steps are captured once as graphs, among which the device chooses.

    The host learns the choices from the log of the device, when it asks for the summary.

    Args:
        model: the transformer.
        adapter: the description of the model.
        config: the settings.
        clock: describes the generation.
        arena: provides the memory.
        ranks: the ranks that decide together with this one.

    Raises:
        ValueError: a setting or a calibration does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: AdaCacheConfig,
        clock: EngineClock,
        arena: ArenaProvider,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(model, adapter, config, clock, arena, ranks)
        if adapter.sweeps > 1:
            raise ValueError(
                f'decision="graph": {type(model).__name__} runs its blocks {adapter.sweeps} times '
                "in one forward call, and a graph cannot show a change of that number; choose "
                '"async"'
            )
        self._graphs = StepGraphs(model, self._decider)
        self._begin_graphs()

    def summary(self) -> Summary:
        """Return what happened in the last generation. The host waits for the device."""
        log = self._graphs.log()
        history = self._generation.history
        history.computed, history.reused = log.computed, log.reused
        for decision in log.decisions.values():
            self._store(decision)
        self._warn_if_nothing_reused()
        return super().summary()

    def _start(self, num_steps: int) -> None:
        super()._start(num_steps)
        self._begin_graphs()

    def _begin_graphs(self) -> None:
        generation = self._generation
        last = generation.policy.last_reusable_step
        first = last - generation.policy.most_reusable_steps + 1
        window = generation.motion_window
        self._graphs.begin_generation(generation.num_steps, (first, last), window)

    def _forget_generation(self) -> None:
        # Graphs hold memory of the arena.
        self._graphs.clear()
        super()._forget_generation()

    def _lose_residuals(self) -> None:
        self._graphs.lose()
        super()._lose_residuals()

    def _begin_step(self, call: Call, forward: ForwardCall, *, can_reuse: bool) -> None:
        """Begin a step that is computed for a reason that the device does not know."""
        if call.step > self._generation.num_steps:
            return
        self._graphs.forget()
        self._generation.last_computed_step = call.step
        self._graphs.begin_step(call.step, forward.device)

    def _forget_written(self, kinds: set[str]) -> None:
        super()._forget_written(kinds)
        self._graphs.drop_graphs()
        if kinds != {"after"}:
            self._graphs.forget()

    def _is_storing(self, branch: GuidanceBranch, step: int) -> bool:
        return step > 1 or super()._is_storing(branch, step)

    def _run_cached(self, branch: GuidanceBranch, call: Call, forward: ForwardCall) -> Any:
        """Launch the graphs of a forward call, or compute it if nothing is stored yet."""
        signature = forward.signature, call.conditions
        if branch.signature != signature and call.first_in_step:
            self._graphs.forget()
        self._fit_to_signature(branch, call, signature)
        if call.first_in_step:
            self._generation.last_computed_step = call.step
            self._graphs.begin_step(call.step, forward.device)
        if not self._graphs.is_eager and self._lost_to_writes(branch, wait=True):
            branch = self._branch(call.branch)
            self._fit_to_signature(branch, call, signature)
        if self._graphs.is_eager or not branch.steps:
            return self._compute(branch, call, forward)
        self._memory.acquire()
        output = self._graphs.run(
            # The graph contains the addresses of the branch's slots, which its index selects.
            (call.branch, branch.index, forward.signature),
            self._memory.slots,
            forward.args,
            forward.kwargs,
            compute=partial(self._capture, self._compute, branch, call, forward),
            reuse=partial(self._capture, self._reuse, branch, call, forward),
        )
        self._memory.mark()
        return output

    def _capture(
        self,
        run: Run,
        branch: GuidanceBranch,
        call: Call,
        forward: ForwardCall,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Run the forward call on the inputs of a graph, which uses the slots from then on."""
        with self._memory.handed_over():
            return run(branch, call, forward.with_inputs(args, kwargs))
