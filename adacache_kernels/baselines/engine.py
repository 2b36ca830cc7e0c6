"""The engine of the baselines.

A baseline reuses modules, ranges of blocks, or single blocks. It stores plain tensors and has no
arena: baselines are for comparisons of quality and speed, not of memory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from ..engine.base import EngineBase
from ..engine.clocks.clock import Call, EngineClock
from ..engine.eligibility import why_not_cached
from ..engine.forward_call import ForwardCall
from ..engine.ranks.collective_watch import group_known
from ..engine.reports.summary import Summary
from ..engine.reports.user_warnings import CHANGED
from ..memory.report import MemoryReport
from ..models import Adapter
from ..models.other_libraries.device_map import check_one_device
from ..models.other_libraries.find_groups import find_rank_groups
from ..models.other_libraries.rank_groups import RankGroup, Role
from .base import BaselineConfig
from .counters import Counters
from .make_mechanism import mechanism_for
from .mechanisms.chain_residuals import ChainMechanism
from .mechanisms.mechanism import BranchState, Step

TIMESTEP = ("timestep", "timesteps", "t")
"""Names that models give to the timestep."""


class BaselineGeneration:
    """Everything that a `BaselineEngine` remembers from one call of a generation to the next.

    Args:
        num_steps: the number of steps, 0 if no generation has begun.
    """

    def __init__(self, num_steps: int) -> None:
        self.counters = Counters(num_steps)
        self.branches: dict[str, BranchState] = {}
        self.signatures: dict[str, object] = {}
        self.step = 0
        """The step that the mechanism has begun."""
        self.timesteps: list[float] | None = None
        """The timesteps of the scheduler, once they have been read."""


class BaselineEngine(EngineBase[BaselineConfig]):
    """The engine of one model that is patched with a baseline.

    Args:
        model: the transformer.
        adapter: the description of the model.
        config: the baseline and its settings.
        clock: describes the generation.
        process_groups: the process groups that the user gave, by role.

    Raises:
        ValueError: the model lacks what the baseline needs.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: BaselineConfig,
        clock: EngineClock,
        process_groups: Mapping[Role, Any] | None = None,
    ) -> None:
        super().__init__(model, config, clock)
        self._adapter = adapter
        self._process_groups = process_groups or {}
        self.mechanism = mechanism_for(model, adapter, config, self.user_warnings)
        self._generation = self._new_generation(clock.num_steps)

    @property
    def reason_not_single(self) -> str:
        """Return the reason: the model has the engine of a baseline."""
        return f"the model is patched with {type(self.config).__name__}"

    def summary(self) -> Summary:
        """Return what happened in the last generation."""
        counters = self._generation.counters
        computed = counters.computed_steps
        if len(computed) == counters.num_steps > 0 and not self.user_warnings.reasons:
            name = type(self.config).__name__
            self.user_warnings.note(f"{name} reused nothing in {len(computed)} steps")
        decisions = [counters.decisions.get(step) for step in computed]
        distances = [None if d is None else d.distance for d in decisions]
        return Summary(
            model=type(self.model).__name__,
            found=self._adapter.describe(self.model),
            num_steps=counters.num_steps,
            computed_steps=computed,
            reused_steps=counters.reused_steps,
            distances=distances,
            raw_distances=distances,
            rates=[None for _ in computed],
            motion_scores=[None for _ in computed],
            measured=[],
            cache_bytes=counters.peak_bytes,
            cache_tensors=counters.peak_tensors,
            memory=MemoryReport(
                planned=counters.peak_bytes,
                in_use=counters.peak_bytes,
                slots=counters.peak_tensors,
                storage="tensors as the model makes them",
            ),
            branches=list(self._generation.branches),
            recomputed={name: list(steps) for name, steps in counters.recomputed.items()},
            lower_order={},
            corrected={},
            waits=list(counters.waits),
            config=self.config.to_dict(),
            codebook=[],
            units=counters.totals,
            reasons=self.user_warnings.reasons,
            reason_steps=self.user_warnings.reason_steps,
        )

    def _begin_generation(self) -> None:
        if isinstance(self.mechanism, ChainMechanism):
            blocks = (block.module for block in self.mechanism.blocks)
            check_one_device(type(self.model).__name__, blocks)
        if self.mechanism.decides_by_content:
            groups = find_rank_groups(self.model, self._process_groups)
            if groups:
                raise ValueError(_ranks_differ(type(self.config).__name__, groups[0]))
        self._generation = self._new_generation(self.clock.num_steps)

    def _forget_generation(self) -> None:
        self._generation = self._new_generation(0)

    def _lose_residuals(self) -> None:
        for branch in self._generation.branches.values():
            branch.forget()

    def _new_generation(self, num_steps: int) -> BaselineGeneration:
        self._warn_of_other_num_steps(num_steps)
        generation = BaselineGeneration(num_steps)
        self.mechanism.begin(num_steps, generation.counters)
        return generation

    def _run(self, call: Call, forward: ForwardCall) -> Any:
        generation = self._generation
        reason = why_not_cached(self.model, self._adapter, forward.arguments)
        topic = "not cached"
        if call.reason is not None:
            topic, reason = call.reason.topic, call.reason.text
        signature = forward.signature, call.conditions
        if call.branch not in generation.branches:
            generation.branches[call.branch] = self.mechanism.branch(call.branch)
        branch = generation.branches[call.branch]
        before = generation.signatures.get(call.branch, signature)
        if before != signature:
            self.user_warnings.note(CHANGED, call.step)
        if reason is not None or before != signature:
            branch.forget()
        generation.signatures[call.branch] = signature
        if call.reason is None and generation.step != call.step:
            generation.step = call.step
            self._begin_step(call.step, forward.arguments)
        if reason is not None:
            self.user_warnings.warn(topic, reason, call.step)
            generation.counters.count(call.step, computed=True)
            return forward.run()
        video = self._adapter.frames(self.model, forward.arguments)
        with self._watched(call):
            output = self.mechanism.run(branch, video, forward.run)
        states = generation.branches.values()
        generation.counters.hold(x for state in states for x in state.tensors())
        return output

    def _watched(self, call: Call) -> AbstractContextManager[None]:
        """Return a context that finds ranks of an unknown group in the first step."""
        is_first = self.mechanism.decides_by_content and call.first_in_generation
        return group_known(type(self.model).__name__, ()) if is_first else nullcontext()

    def _begin_step(self, step: int, arguments: Mapping[str, Any]) -> None:
        timestep = self._timestep(step, arguments) if self.mechanism.by_timestep else None
        guided = self.clock.has_guidance is True
        self.mechanism.begin_step(Step(step, timestep, guided), self._generation.branches)

    def _timestep(self, step: int, arguments: Mapping[str, Any]) -> float:
        """Return the timestep by the scheduler, read once a generation, or the one of the call."""
        generation, scheduler = self._generation, self.clock.scheduler
        if scheduler is not None:
            if generation.timesteps is None:
                generation.timesteps = self._read(scheduler.timesteps)[-self.clock.num_steps :]
            return generation.timesteps[step - 1]
        given = next((arguments[name] for name in TIMESTEP if name in arguments), None)
        if given is None:
            raise ValueError(
                f"{type(self.model).__name__} was called without a timestep, but this method "
                "decides by a window of timesteps; name it in the call, or patch the pipeline"
            )
        return self._read(given)[0]

    def _read(self, value: Any) -> list[float]:
        if not isinstance(value, Tensor):
            return [float(value)]
        start = time.perf_counter()
        numbers: list[float] = value.reshape(-1).tolist()
        if value.device.type != "cpu":
            self._generation.counters.waits.append(time.perf_counter() - start)
        return numbers


def _ranks_differ(method: str, group: RankGroup) -> str:
    """Return the message for a method that would decide differently on each rank of a group."""
    return (
        f"{method} decides by what each rank computes, and the ranks {list(group.ranks)} "
        f"({group.origin}) have to decide as one. Use AdaCacheConfig, with which ranks agree, or a "
        "method that decides by the number of the step: FixedIntervalConfig, PABConfig, "
        "TGATEConfig, DeltaDiTConfig, TaylorSeerConfig or MagCacheConfig"
    )
