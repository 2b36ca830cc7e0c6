"""The engine of the other methods: the clock, branches, lifecycle and summary of `Engine`, around
forwards that reuse modules, ranges of blocks, or blocks by their own schedules.

What is kept are plain tensors: these are methods to compare with, not to save memory by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..engine import user_warnings as notices
from ..engine.cache_context import current_context
from ..engine.call_signature import signature_of
from ..engine.clocks.clock import Call, StepClock
from ..engine.clocks.timestep_clock import RepeatedTimestepCheck
from ..engine.eligibility import why_not_cached
from ..engine.summary import Summary
from ..memory.report import MemoryReport
from ..models import Adapter
from ..models.block_calls import Parameters
from .base import BaselineConfig
from .counters import Counters
from .make_mechanism import mechanism_for
from .mechanisms.mechanism import BranchState, Original

Forward = Callable[..., Any]
TIMESTEP = ("timestep", "timesteps", "t")


class BaselineEngine:
    """State of one model that is patched with a method other than `AdaCacheConfig`.

    Args:
        model: the transformer.
        adapter: what is known of its class.
        config: the method and its settings.
        clock: tells steps and branches apart.

    Raises:
        ValueError: the model lacks what the method needs.
    """

    def __init__(
        self, model: nn.Module, adapter: Adapter, config: BaselineConfig, clock: StepClock
    ) -> None:
        self.model = model
        self.config = config
        self.clock = clock
        self._adapter = adapter
        self._notices = notices.UserWarnings(type(model).__name__)
        self.mechanism = mechanism_for(model, adapter, config, self._notices)
        self._parameters = Parameters(model)
        self._repeats = RepeatedTimestepCheck(self._notices)
        self._start_generation(clock.num_steps)

    def forward(self, original: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward call of the model, `original` being its own forward."""
        arguments = self._parameters.bind(args, kwargs)
        call = self.clock.next_call(current_context(), arguments)
        if call is None:
            self._notices.say("lost steps", notices.LOST_STEPS)
            return original(*args, **kwargs)
        try:
            if call.first_in_generation:
                self._start_generation(self.clock.num_steps)
            return self._run(call, arguments, partial(original, *args, **kwargs))
        except BaseException:
            self.reset()
            raise

    def reset(self) -> None:
        """Forget the generation and what it holds; the next call begins a new one."""
        self.clock.restart()
        self._start_generation(0)

    def summary(self) -> Summary:
        """What happened in the last generation."""
        tally = self._tally
        computed = tally.computed_steps
        decisions = [tally.decisions.get(step) for step in computed]
        distances = [None if d is None else d.distance for d in decisions]
        storage = "tensors as the model makes them"
        return Summary(
            model=type(self.model).__name__,
            found=self._adapter.describe(self.model),
            num_steps=tally.num_steps,
            computed_steps=computed,
            reused_steps=tally.reused_steps,
            distances=distances,
            raw_distances=distances,
            rates=[None for _ in computed],
            motion_scores=[None for _ in computed],
            measured=[],
            cache_bytes=tally.peak_bytes,
            cache_tensors=tally.peak_tensors,
            memory=MemoryReport(
                planned=tally.peak_bytes,
                in_use=tally.peak_bytes,
                slots=tally.peak_tensors,
                storage=storage,
            ),
            branches=list(self._branches),
            recomputed={name: list(steps) for name, steps in tally.recomputed.items()},
            lower_order={},
            corrected={},
            waits=list(tally.waits),
            config=self.config.to_dict(),
            codebook=[],
            units=tally.totals,
        )

    def _start_generation(self, num_steps: int) -> None:
        planned = self.config.num_inference_steps
        if planned is not None and num_steps not in (0, planned):
            self._notices.say("number of steps", notices.number_of_steps(planned, num_steps))
        self._tally = Counters(num_steps)
        self._branches: dict[str, BranchState] = {}
        self._signatures: dict[str, object] = {}
        self._timesteps: list[float] | None = None
        self.mechanism.begin(num_steps, self._tally)

    def _run(self, call: Call, arguments: Mapping[str, Any], original: Original) -> Any:
        obstacle = why_not_cached(self.model, self._adapter, arguments)
        signature = signature_of(arguments)
        if call.branch not in self._branches:
            self._branches[call.branch] = self.mechanism.branch(call.branch)
        branch = self._branches[call.branch]
        if obstacle is not None or self._signatures.get(call.branch) != signature:
            branch.forget()
        self._signatures[call.branch] = signature
        if call.first_in_step:
            self._repeats.note(arguments)
            self._begin_step(call.step, arguments)
        if obstacle is not None:
            self._notices.say("not cached", obstacle)
            self._tally.count(call.step, computed=True)
            return original()
        video = self._adapter.frames(self.model, arguments)
        output = self.mechanism.run(branch, video, original)
        self._tally.hold(x for state in self._branches.values() for x in state.tensors())
        return output

    def _begin_step(self, step: int, arguments: Mapping[str, Any]) -> None:
        timestep = self._timestep(step, arguments) if self.mechanism.by_timestep else None
        guided = self.clock.has_guidance is True
        self.mechanism.begin_step(step, timestep, self._branches, guided=guided)

    def _timestep(self, step: int, arguments: Mapping[str, Any]) -> float:
        """Of a pipeline's scheduler, read once a generation; else of the call."""
        scheduler = self.clock.scheduler
        if scheduler is not None:
            if self._timesteps is None:
                self._timesteps = self._read(scheduler.timesteps)[-self.clock.num_steps :]
            return self._timesteps[step - 1]
        given = next((arguments[name] for name in TIMESTEP if name in arguments), None)
        if given is None:
            raise ValueError(
                f"{type(self.model).__name__} was called without a timestep, by whose window this "
                "method decides; name it in the call, or patch the pipeline"
            )
        return self._read(given)[0]

    def _read(self, value: Any) -> list[float]:
        if not isinstance(value, Tensor):
            return [float(value)]
        start = time.perf_counter()
        numbers: list[float] = value.reshape(-1).tolist()
        if value.device.type != "cpu":
            self._tally.waits.append(time.perf_counter() - start)
        return numbers
