"""The engine of one model: compute or reuse each of its forward calls."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import astuple
from functools import partial
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..memory.plan import Storage
from ..memory.residual_store import ResidualStore
from ..models import Adapter, BlockRun
from ..models.block_calls import shadowed
from ..schedule import Decision
from .base import AdaCacheEngine
from .clocks.clock import UNKNOWN_STEPS, Call, EngineClock, Reason
from .eligibility import check_cacheable, why_not_cached
from .forward_call import ForwardCall
from .generation import Generation
from .leader_measurement import LeaderMeasurement
from .make_policy import check_correctable, check_profile
from .ranks.ranks import Ranks
from .ranks.shard import Shard
from .reports import user_warnings
from .reports.evidence_messages import OPEN_END
from .reports.nothing_reused import (
    never_engaged,
    profile_never_engaged,
    reuse_is_off,
    too_few_steps,
)
from .reports.summary import Summary, summarize
from .residuals.block_stand_ins import Before, Observer
from .residuals.guidance_branch import GuidanceBranch
from .residuals.write_check import Write, WriteCheck
from .slot_reservation import SlotReservation
from .step_recorder import StepRecorder
from .write_guard import WriteGuard


class Engine(AdaCacheEngine):
    """The engine of one model under an `AdaCacheConfig`. The host chooses to compute or to reuse.

    Args:
        model: the transformer.
        adapter: the description of the model.
        config: the settings.
        clock: describes the generation.
        arena: provides the memory.
        ranks: the ranks that decide together with this one.

    Raises:
        ValueError: a setting, a profile or a calibration does not fit the model.
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
        super().__init__(model, config, clock)
        self._ranks = Ranks(model, config) if ranks is None else ranks
        self.recorder: StepRecorder | None = None
        """Receives the residuals of every computed step; a calibration sets it."""
        self._adapter = adapter
        self._writes = WriteGuard(model, adapter, self.user_warnings)
        self._memory = ResidualStore(arena, Storage(config.cache_dtype), tuple(config.over_budget))
        self._measurement = LeaderMeasurement(
            model, adapter, config, clock, self._memory, self.user_warnings, self._ranks
        )
        self._meter = self._measurement.meter
        self._decider = self._measurement.decider
        if config.correct:
            check_correctable(model, adapter)
        self._reservation = SlotReservation(adapter, clock, self._memory, self._meter, self._ranks)
        self._check_num_steps(clock.num_steps)
        self._generation = Generation(config, clock.num_steps, clock.scheduler)
        self._decider.restart(self._generation.codebook, self._generation.motion_window)

    @property
    def reason_not_single(self) -> str | None:
        """Return None: this is the single engine of its model."""
        return None

    def summary(self) -> Summary:
        """Return what happened in the last generation."""
        self._read_decision()
        generation = self._generation
        return summarize(
            generation.history,
            model=type(self.model).__name__,
            found=", ".join([self._adapter.describe(self.model), *self._ranks.describe()]),
            branches=tuple(generation.branches),
            measured=self._meter.residuals,
            memory=self._memory.report(),
            config=self.config.to_dict(),
            codebook=tuple(generation.codebook) if self.config.decides_by_codebook else (),
            reasons=self.user_warnings,
        )

    def join(self, call: Call) -> None:
        """Join a generation whose first call, of the leader, was computed without this engine."""
        self._ranks.begin_generation(is_recorded=self.recorder is not None)
        self._generation.plan(call.step, can_reuse=False)
        self._generation.elect_leader(call.branch, call.step)
        self._warn_at_beginning()
        self._branch(call.branch)

    def _begin_generation(self) -> None:
        check_cacheable(self.model, self._adapter)
        self._ranks.begin_generation(is_recorded=self.recorder is not None)
        self._check_num_steps(self.clock.num_steps)
        self._start(self.clock.num_steps)
        self._warn_at_beginning()

    def _warn_at_beginning(self) -> None:
        policy, codebook = self._generation.policy, self._generation.codebook
        if self.clock.num_steps == UNKNOWN_STEPS:
            self.user_warnings.warn("open end", OPEN_END)
        few = too_few_steps(self.config, policy, self._generation.num_steps)
        self.user_warnings.warn("few steps", few)
        self.user_warnings.note(reuse_is_off(self.config, policy, codebook))

    def _forget_generation(self) -> None:
        self._start(0)
        self._memory.release()

    def _lose_residuals(self) -> None:
        for branch in self._generation.branches.values():
            branch.lose()
        self._meter.forget()
        self._decider.restart(self._generation.codebook, self._generation.motion_window)
        self._memory.release()

    def _check_num_steps(self, num_steps: int) -> None:
        self._warn_of_other_num_steps(num_steps)
        check_profile(self.config, self.model, self.clock.scheduler, num_steps)

    def _start(self, num_steps: int) -> None:
        """Replace the generation. Branches and shapes may differ, so no residual outlives it."""
        self._reservation.end_generation(self._generation)
        self._generation = Generation(self.config, num_steps, self.clock.scheduler)
        self._meter.forget()
        self._decider.restart(self._generation.codebook, self._generation.motion_window)
        self._memory.begin_generation()

    def _run(self, call: Call, forward: ForwardCall) -> Any:
        for each in tuple(self._generation.branches.values()):
            self._lost_to_writes(each, wait=False)
        branch = self._branch(call.branch)
        self._generation.note_call(call.branch, call.step)
        reason = self._reason_to_compute(call, forward)
        if reason is None:
            return self._run_cached(branch, call, forward)
        if call.first_in_step:
            self._begin_step(call, forward, can_reuse=False)
        self._generation.note_recomputed(call.branch, call.step)
        self._forget_residuals(branch, call)
        branch.signature = _signature(call, forward)
        self.user_warnings.warn(reason.topic, reason.text, call.step)
        return forward.run()

    def _reason_to_compute(self, call: Call, forward: ForwardCall) -> Reason | None:
        """Return the reason why a call must be computed and nothing is stored; None if none."""
        if call.reason is not None:
            return call.reason
        text = self._writes.reason
        text = text or why_not_cached(self.model, self._adapter, forward.arguments)
        return None if text is None else Reason("not cached", text)

    def _run_cached(self, branch: GuidanceBranch, call: Call, forward: ForwardCall) -> Any:
        """Run a forward call that may be cached."""
        signature = _signature(call, forward)
        can_reuse = branch.holds(self._generation.last_computed_step, signature)
        if call.first_in_step:
            self._begin_step(call, forward, can_reuse=can_reuse and not call.near_end)
        if can_reuse and not self._generation.is_computing:
            if not self._lost_to_writes(branch, wait=True):
                output = self._reuse(branch, call, forward)
                if not self._lost_to_sweeps(branch, call):
                    return output
            branch = self._branch(call.branch)
        if self._generation.wants_reuse and not (can_reuse or call.near_end):
            changed = branch.signature not in (None, signature)
            reason = user_warnings.CHANGED if changed else user_warnings.NOT_STORED
            if call.notice is None:
                self.user_warnings.note(reason, call.step)
        self._generation.note_recomputed(call.branch, call.step)
        self._fit_to_signature(branch, call, signature)
        return self._compute(branch, call, forward)

    def _begin_step(self, call: Call, forward: ForwardCall, *, can_reuse: bool) -> None:
        self._read_decision()
        self._generation.plan(call.step, can_reuse=can_reuse)
        self._warn_if_nothing_reused()

    def _reuse(self, branch: GuidanceBranch, call: Call, forward: ForwardCall) -> Any:
        """Add the stored residuals instead of running the blocks."""
        generation = self._generation
        if len(branch.steps) <= generation.forecast.order:
            generation.history.lower_order.setdefault(call.branch, []).append(call.step)
        self._memory.acquire()
        with shadowed(self.model, branch.reused(call.step)):
            output = forward.run()
        self._memory.mark()
        return output

    def _compute(self, branch: GuidanceBranch, call: Call, forward: ForwardCall) -> Any:
        """Run the blocks; measure and store what they add."""
        if self._generation.elect_leader(call.branch, call.step):
            self._meter.forget()
        is_leader = call.branch == self._generation.leader
        is_measuring = is_leader and self.config.decides_by_measurement
        is_storing = self._is_storing(branch, call.step)
        if not (is_measuring or is_storing):
            return forward.run()
        video = self._adapter.video(self.model, forward.arguments)
        shard = branch.shard if branch.reserved_for == branch.signature else None
        shard = shard or self._ranks.shard_before(video, self._adapter)
        # A calibration needs the right residual of every step, the first one too.
        is_recorded = self.recorder is not None
        is_first = branch.checked_for != branch.signature
        branch.check.begin(fingerprints=is_storing and is_first)
        observers: dict[str, dict[int, list[Observer]]] = {}
        if is_measuring:
            observers = self._measurement.begin(call.step, shard, self.recorder)
            self._writes.watch_metric_blocks(observers, branch.check, keeps_all=is_recorded)
        first_list = observers.setdefault(self._adapter.lists[0].attribute, {})
        first_list.setdefault(0, []).insert(0, Before(partial(self._reserve, branch, video, shard)))
        lists = branch.computed(
            call.step,
            observers,
            shard.video,
            recording=is_storing,
            kept=self._writes.kept_lists(keeps_all=is_recorded),
            measure=self._measurement.comparison(shard) if is_measuring else None,
        )
        watched = self._ranks.watched() if is_measuring else nullcontext()
        with shadowed(self.model, lists), watched:
            output = forward.run()
        self._memory.mark()
        self._end_computed(branch, call, is_storing=is_storing)
        if is_measuring:
            self._measurement.end(branch, is_storing=is_storing)
        self._lost_to_sweeps(branch, call)
        return output

    def _is_storing(self, branch: GuidanceBranch, step: int) -> bool:
        """Return whether this computed step stores its residuals."""
        return self.recorder is not None or self._generation.needs_residuals(branch, step)

    def _reserve(
        self, branch: GuidanceBranch, video: tuple[int, int], shard: Shard, run: BlockRun
    ) -> None:
        if not self._reservation.reserve(self._generation, branch, video, shard, run):
            self._meter.forget()
            self.user_warnings.warn("planned again", user_warnings.PLANNED_AGAIN)

    def _end_computed(self, branch: GuidanceBranch, call: Call, *, is_storing: bool) -> None:
        branch.end()
        if self.recorder is not None:
            self.recorder.take(call.branch, branch.recorded())
        if is_storing:
            branch.check.post()
            branch.checked_for = branch.signature
        if not self._lost_to_writes(branch, wait=False) and is_storing:
            # In a reused step, the other branches hold residuals of the last computed step.
            branch.computed_at = self._generation.last_computed_step
        needs_end = self.config.correct or self.config.compares_forecasts
        if is_storing and needs_end and not branch.completed:
            text = user_warnings.last_list(self._adapter.lists[-1].attribute)
            self.user_warnings.warn("last list", text, call.step)
        if branch.corrected:
            self._generation.history.corrected.setdefault(call.branch, []).append(call.step)

    def _lost_to_writes(self, branch: GuidanceBranch, *, wait: bool) -> bool:
        """Act on writes into the streams of a branch; return True if its residuals are lost.

        Args:
            branch: a branch of the present generation.
            wait: whether the host waits for comparisons that the device has not finished. Before
                the first reuse it has to: the computed steps must not depend on the device's speed.
        """
        self._read_writes(branch.check, wait=wait)
        writes = branch.check.take()
        if not writes:
            return False
        self._writes.learn(writes)
        self._forget_written({write.kind for write in writes})
        for each in self._generation.branches.values():
            each.give_every_block(self._writes.whole)
        if not any(write.spoils_residuals for write in writes):
            return False
        branch.forget()
        if self._adapter is not self._writes.adapter:
            self._use_lists_of(self._writes.adapter)
        return True

    def _read_writes(self, check: WriteCheck, *, wait: bool) -> None:
        """Read the comparisons that the device has finished, on all ranks at the same call."""
        if self._ranks.are_several and not (wait and check.is_open):
            return
        waited = check.read(wait=wait)
        if waited > 0:
            self._generation.history.waits.append(waited)
        if self._ranks.are_several:
            found = self._ranks.union(astuple(write) for write in check.found)
            check.found = {Write(*write) for write in found}

    def _lost_to_sweeps(self, branch: GuidanceBranch, call: Call) -> bool:
        """Forget a branch if the blocks did not run as often as in the first forward call.

        The number of sweeps is known when the call has ended. Then the caller has to repeat a
        reused call, because the residuals of another sweep may have been added.
        """
        difference = branch.sweeps.difference
        if difference is None:
            return False
        self._forget_residuals(branch, call)
        self.user_warnings.warn("sweeps", difference, call.step)
        return True

    def _forget_written(self, kinds: set[str]) -> None:
        """Forget what was measured before writes of these kinds were known."""
        if not kinds.isdisjoint(("metric", "between")):
            self._meter.forget()

    def _use_lists_of(self, adapter: Adapter) -> None:
        """Begin again with other block lists: no residual fits them."""
        self._adapter = self._reservation.adapter = adapter
        self._generation.branches.clear()
        self._memory.begin_generation()

    def _branch(self, name: str) -> GuidanceBranch:
        generation = self._generation
        if name not in generation.branches:
            generation.branches[name] = GuidanceBranch(
                self.model,
                self._adapter,
                self._memory,
                len(generation.branches),
                generation.ring_size,
                generation.forecast,
                correct=self.config.correct,
            )
            generation.branches[name].give_every_block(self._writes.whole)
        return generation.branches[name]

    def _fit_to_signature(self, branch: GuidanceBranch, call: Call, signature: object) -> None:
        if branch.signature != signature:
            self._forget_residuals(branch, call)
        branch.signature = signature

    def _forget_residuals(self, branch: GuidanceBranch, call: Call) -> None:
        branch.forget()
        if call.branch == self._generation.leader:
            self._meter.forget()

    def _read_decision(self) -> None:
        read = self._decider.read()
        if read is not None:
            self._store(self._generation.observe(*read))

    def _store(self, decision: Decision) -> None:
        self._generation.store(decision)
        if decision.not_finite:
            self.user_warnings.warn("not finite", user_warnings.NOT_FINITE, decision.step)
        if decision.zero_denominator:
            self.user_warnings.warn("zero", user_warnings.ZERO, decision.step)

    def _warn_if_nothing_reused(self) -> None:
        """Warn at the end of a generation that reused nothing, unless another reason is known."""
        generation = self._generation
        is_explained = bool(self.user_warnings.reason_steps)
        if not generation.history.is_complete or is_explained:
            return
        history, policy = generation.history, generation.policy
        text = profile_never_engaged(history, self.config, policy)
        if self.config.decides_by_codebook:
            text = never_engaged(history, generation.codebook, policy)
        self.user_warnings.warn("never engaged", text)


def _signature(call: Call, forward: ForwardCall) -> object:
    """Return the shapes, switches and conditions of a call. Stored residuals fit only the same."""
    return forward.signature, call.conditions
