"""The engine: runs one model's forwards under a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..memory.plan import SlotDemand, Storage, StreamShapes
from ..memory.residual_store import ResidualStore
from ..models import Adapter, BlockRun
from ..models.block_calls import Parameters, shadowed, storages
from ..models.other_libraries.conflicting_patches import check_neighbours
from ..schedule import Decision
from . import user_warnings as notices
from .cache_context import current_context, leads_before
from .call_signature import device_of, signature_of
from .clocks.clock import Call, StepClock
from .clocks.timestep_clock import RepeatedTimestepCheck, open_ended
from .decision.distance_meter import DistanceMeter
from .decision.metric_blocks import MetricBlocks
from .decision.step_graphs import DeviceLog, StepGraphs
from .eligibility import why_not_cached
from .guidance_rows import videos_of
from .make_policy import check_correctable, check_profile, make_forecast, make_policy
from .residuals.block_stand_ins import Before
from .residuals.guidance_branch import GuidanceBranch, ring_size
from .step_recorder import StepRecorder
from .summary import History, Summary, summarize

Forward = Callable[..., Any]


class Engine:
    """State of one patched model: clock, policy, branches, meter, history.

    Args:
        model: the transformer.
        adapter: what is known of its class.
        config: the settings.
        clock: tells steps and branches apart.
        arena: where its memory is from.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: AdaCacheConfig,
        clock: StepClock,
        arena: ArenaProvider,
    ) -> None:
        self.model = model
        self.config = config
        self.clock = clock
        self._adapter = adapter
        storage = Storage(config.cache_dtype)
        self._memory = ResidualStore(arena, storage, tuple(config.over_budget))
        # A schedule that is given decides by itself.
        self._measuring = config.schedule is None
        self._by_codebook = self._measuring and config.loaded_profile is None
        self._comparing = self._measuring and config.measure == "forecast-error"
        self._sites = MetricBlocks(model, adapter, config)
        self._meter = DistanceMeter(self._sites.visible(), config, self._memory)
        self._graphs = StepGraphs(model, self._meter) if config.decision == "graph" else None
        if config.correct:
            check_correctable(model, adapter)
        self._parameters = Parameters(model)
        self._notices = notices.UserWarnings(type(model).__name__)
        self._repeats = RepeatedTimestepCheck(self._notices)
        self.recorder: StepRecorder | None = None
        self._branches: dict[str, GuidanceBranch] = {}
        self._branch_counts: dict[int | None, int] = {}
        self._calls: int | None = None
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
                check_neighbours(self.model)
                self._start_generation(self.clock.num_steps)
                self._notices.say("open end", open_ended(self.clock))
            return self._run(call, original, args, kwargs, arguments)
        except BaseException:
            self.reset()
            raise

    def reset(self) -> None:
        """Forget the generation and give its memory back; the next call begins a new one."""
        self.clock.restart()
        self._start_generation(0)
        if self._graphs is not None:
            self._graphs.clear()
        self._memory.release()

    def summary(self) -> Summary:
        """What happened in the last generation."""
        self._read_decision()
        if self._graphs is not None:
            self._hear(self._graphs.told())
        return summarize(
            self._history,
            model=type(self.model).__name__,
            found=self._adapter.describe(self.model),
            branches=tuple(self._branches),
            measured=self._meter.residuals,
            memory=self._memory.report(),
            config=self.config.to_dict(),
            codebook=tuple(self._codebook) if self._by_codebook else (),
        )

    def _start_generation(self, num_steps: int) -> None:
        """Nothing has run yet; `num_steps` is as a clock says it."""
        planned = self.config.num_inference_steps
        if planned is not None and num_steps not in (0, planned):
            self._notices.say("number of steps", notices.number_of_steps(planned, num_steps))
        self._history = History(max(0, num_steps))
        check_profile(self.config, self.model, self.clock.scheduler, num_steps)
        self._policy = make_policy(self.config, num_steps)
        self._forecast = make_forecast(self.config, num_steps, self.clock.scheduler)
        self._codebook = self.config.codebook_for(num_steps)
        window = self.config.window_for(num_steps)
        self._meter.restart(self._codebook, window)
        if self._graphs is not None:
            last = self._policy.last_reusable_step
            first = last - self._policy.most_reusable_steps + 1
            self._graphs.begin_generation(num_steps, (first, last), window)
        self._leader: str | None = None
        self._decision: Decision | None = None
        self._reusable: int | None = None
        self._computing = True
        # Branches and shapes may differ in the next generation: no residual outlives its own.
        if self._branches:
            self._branch_counts[self._calls] = len(self._branches)
        self._branches = {}
        self._memory.begin_generation()

    def join(self, call: Call) -> None:
        """The generation has begun without the engine: this call, of the leader, stored nothing."""
        self._reusable = call.step
        self._history.computed.append(call.step)
        self._notices.say("open end", open_ended(self.clock))
        self._leader = call.branch
        self._branch(call.branch)

    def _run(
        self,
        call: Call,
        original: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> Any:
        branch = self._branch(call.branch)
        obstacle = why_not_cached(self.model, self._adapter, arguments)
        if self._graphs is not None and obstacle is None:
            return self._run_by_graph(self._graphs, branch, call, original, args, kwargs)
        signature = signature_of(arguments)
        can_reuse = obstacle is None and branch.holds(self._reusable, signature)
        if call.first_in_step:
            self._repeats.note(arguments)
            self._plan(call.step, can_reuse and not call.near_end)
        if can_reuse and not self._computing:
            return self._reuse(branch, call, original, args, kwargs)
        if not self._computing:
            self._history.recomputed.setdefault(call.branch, []).append(call.step)
        if obstacle is not None or branch.signature != signature:
            self._forget(branch, call)
        branch.signature = signature
        if obstacle is not None:
            self._notices.say("not cached", obstacle)
            return original(*args, **kwargs)
        return self._compute(branch, call, original, args, kwargs, arguments)

    def _run_by_graph(
        self,
        graphs: StepGraphs,
        branch: GuidanceBranch,
        call: Call,
        original: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """The device chooses, but where nothing is stored yet that could be reused."""
        arguments = self._parameters.bind(args, kwargs)
        signature = signature_of(arguments)
        if branch.signature != signature:
            self._forget(branch, call)
            if call.first_in_step:
                graphs.forget()
        branch.signature = signature
        if call.first_in_step:
            self._repeats.note(arguments)
            self._reusable = call.step
            graphs.begin_step(call.step, device_of(arguments))
        if graphs.is_eager or not branch.steps:
            return self._compute(branch, call, original, args, kwargs, arguments)

        def compute(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            with self._memory.handed_over():
                arguments = self._parameters.bind(args, kwargs)
                return self._compute(branch, call, original, args, kwargs, arguments)

        def reuse(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            with self._memory.handed_over():
                return self._reuse(branch, call, original, args, kwargs)

        self._memory.acquire()
        key, slots = (call.branch, signature), self._memory.slots
        output = graphs.run(key, slots, args, kwargs, compute, reuse)
        self._memory.mark()
        return output

    def _hear(self, told: DeviceLog) -> None:
        """Take down what the device has chosen by itself."""
        self._history.computed, self._history.reused = told.computed, told.reused
        for decision in told.decisions.values():
            self._note(decision)
        if self._history.is_complete:
            self._warn_if_nothing_reused()

    def _plan(self, step: int, can_reuse: bool) -> None:
        """Compute or reuse: one decision for all branches of the step."""
        self._read_decision()
        self._computing = not can_reuse or self._policy.compute(step, self._decision)
        if self._computing:
            self._reusable = step
            self._history.computed.append(step)
        else:
            self._history.reused.append(step)
        if self._history.is_complete:
            self._warn_if_nothing_reused()

    def _reuse(
        self,
        branch: GuidanceBranch,
        call: Call,
        original: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if len(branch.steps) <= self._forecast.order:
            self._history.lower_order.setdefault(call.branch, []).append(call.step)
        self._memory.acquire()
        given = storages((args, kwargs))
        with shadowed(self.model, branch.reused(call.step, given)):
            output = original(*args, **kwargs)
        self._memory.mark()
        return output

    def _reserve(self, branch: GuidanceBranch, video: tuple[int, int], run: BlockRun) -> None:
        """The slots of a branch, before the first block of a computed forward runs."""
        if branch.reserved_for == branch.signature:
            return self._memory.acquire()
        entering = StreamShapes.of(video, self._adapter.lists[0], run.arguments)
        demand = SlotDemand(self._adapter.lists, self._places, self._meter.places)
        self._calls = self.clock.calls(self._adapter.guidance_calls)
        # What such a generation has turned out to need counts more than what is known before.
        expected = self._branch_counts.get(self._calls, self._calls or 1)
        kept = self._memory.ensure(branch.index, expected, demand, entering, run.x_in.device)
        self._memory.acquire()
        if not kept:
            self._forget_all()
        branch.reserved_for = branch.signature

    def _compute(
        self,
        branch: GuidanceBranch,
        call: Call,
        original: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> Any:
        if self._leader is None or leads_before(call.branch, self._leader):
            self._leader = call.branch
            self._meter.forget()
        measuring = self._measuring and call.branch == self._leader
        recording = self._is_recording(branch, call.step)
        if not (measuring or recording):
            return original(*args, **kwargs)
        shape = self._adapter.frames(self.model, arguments)
        observers: dict[str, Any] = {}
        if measuring:
            self._meter.look_at(self._sites.visible())
            if self._sites.warning:
                self._notices.say("compiled", self._sites.warning)
            videos = videos_of(shape[0], self.config, self._adapter, self.clock)
            self._meter.begin(call.step, shape, videos, self.recorder)
            for blocks in self._adapter.lists:
                observers[blocks.attribute] = self._meter.observers(blocks.attribute)
        first = self._adapter.lists[0].attribute
        reservation = Before(partial(self._reserve, branch, shape))
        observers.setdefault(first, {}).setdefault(0, []).insert(0, reservation)
        measure = (self.config.strides, self.config.measured_metric)
        lists = branch.computed(
            call.step,
            observers,
            shape,
            recording=recording,
            measure=measure if measuring and self._comparing else None,
        )
        with shadowed(self.model, lists):
            output = original(*args, **kwargs)
        self._memory.mark()
        branch.end()
        if self.recorder is not None:
            self.recorder.take(call.branch, branch.recorded())
        if branch.written_in_place:
            branch.forget()
            self._notices.say("in place", notices.IN_PLACE)
        elif recording:
            # In a reused step the other branches hold the last computed one's; this one catches up.
            branch.computed_at = self._reusable
        if recording and not branch.completed and (self.config.correct or self._comparing):
            self._notices.say("last list", notices.last_list(self._adapter.lists[-1].attribute))
        if branch.corrected:
            self._history.corrected.setdefault(call.branch, []).append(call.step)
        if measuring:
            self._measure(branch, recording)
        return output

    def _is_recording(self, branch: GuidanceBranch, step: int) -> bool:
        """Whether the residuals of this step may be used: by reused steps, or to correct it."""
        if self.recorder is not None or (self._graphs is not None and step > 1):
            return True
        if self._forecast.order == 0 and not (self.config.correct or self._comparing):
            never_reuses = self._by_codebook and max(self._codebook.rates) == 1
            return not never_reuses and self._policy.may_reuse_after(step)
        to_correct = self.config.correct and branch.reused_since
        return to_correct or step < self._policy.last_reusable_step

    def _measure(self, branch: GuidanceBranch, recording: bool) -> None:
        """Take what this forward measured; say so if there is nothing to decide by."""
        if self._comparing:
            if recording:
                self._meter.take(branch.compared())
        elif not self._meter.measured:
            self._meter.forget()
            self._notices.say("metric block", notices.METRIC_BLOCK)

    def _branch(self, name: str) -> GuidanceBranch:
        if name not in self._branches:
            known = (self.model, self._adapter, self._memory, len(self._branches))
            correct = self.config.correct
            branch = GuidanceBranch(*known, self._places, self._forecast, correct=correct)
            self._branches[name] = branch
        return self._branches[name]

    @property
    def _places(self) -> int:
        return ring_size(self._forecast.order, correct=self.config.correct)

    def _forget_all(self) -> None:
        """The memory had to be planned anew in the middle of a generation."""
        for branch in self._branches.values():
            branch.lose()
        self._meter.forget()
        self._notices.say("planned anew", notices.PLANNED_ANEW)

    def _forget(self, branch: GuidanceBranch, call: Call) -> None:
        branch.forget()
        if call.branch == self._leader:
            self._meter.forget()

    def _read_decision(self) -> None:
        read = self._meter.read()
        if read is None:
            return
        decision, waited = read
        if waited > 0:
            self._history.waits.append(waited)
        self._decision = self._policy.observe(decision)
        self._note(self._decision)

    def _note(self, decision: Decision) -> None:
        self._history.decisions[decision.step] = decision
        if decision.not_finite:
            # A forecast must not carry on what is not a number.
            for branch in self._branches.values():
                branch.drop([decision.step])
            self._notices.say("not finite", notices.not_finite(decision.step))
        if decision.zero_denominator:
            self._notices.say("zero", notices.zero(decision.step))

    def _warn_if_nothing_reused(self) -> None:
        # After another warning, the reason has been told.
        if self._by_codebook and self._policy.most_reusable_steps > 0 and not self._notices.said:
            text = notices.never_engaged(self._history, self._codebook)
            self._notices.say("never engaged", text)
