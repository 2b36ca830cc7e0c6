"""The rounds of a calibration: what is generated to learn what a target takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from ..config.calibration_file import Target
from ..schedule import Plan, evenly_spread
from ..schedule.profile import Profile
from .make_profile import fit_moreg
from .outcomes import psnr
from .record import CalibrationRecording, Case, Progress
from .refine_schedule import refine_schedule
from .simulate import (
    TINY,
    CodebookFamily,
    SettingFamily,
    SimulatedCase,
    best_form,
    codebook_forms,
    knob_for,
)
from .target_search import Curve, SearchPoint, search
from .timed_runs import Costs, RunComparison, Runner

# Cases that the costs of steps are measured on to begin with, and that a speedup is measured on in
# each round; a PSNR needs all of them.
PRICED, TIMED = 6, 12
# Cases that a refined schedule is judged by.
REFINED_ON = 12
# Part of the steps that is computed in the first round for a PSNR.
FIRST_PART = 0.4
# A correlation of motion and hardness counts from two standard errors on.
CLEAR = 2.0


@dataclass
class GenerationRounds(Generic[Case]):
    """The generations of one calibration.

    Args:
        target: what is to be reached.
        recording: of the cases.
        cases: to fit to.
        runner: generates them.
        peak: range of the values of an outcome.
        most: rounds that correct what is expected.
        tell: is told of every generation.
    """

    target: Target
    recording: CalibrationRecording
    cases: Sequence[Case]
    runner: Runner[Case]
    peak: float
    most: int
    tell: Progress
    costs: Costs = field(default_factory=Costs)
    seen: dict[float, list[float]] = field(default_factory=dict)

    @property
    def first_count(self) -> float:
        """Computed steps to begin with."""
        steps = self.recording.num_steps
        if self.target.of == "speedup":
            return self.costs.computed_for(steps, self.target.value)
        return FIRST_PART * steps

    def measure_costs(self, settings: dict[str, Any]) -> None:
        """What steps cost, which a speedup goes by."""
        if self.target.of == "speedup":
            self._counts(settings | {"schedule": self._even}, "costs of steps", PRICED)

    @property
    def _even(self) -> list[int]:
        """Steps evenly spread, about as many as the target takes."""
        steps = self.recording.num_steps
        part = 1 / self.target.value if self.target.of == "speedup" else FIRST_PART
        return evenly_spread(min(steps, max(4, round(part * steps))), steps)

    def codebook_form(self, settings: dict[str, Any], profile: Profile | None) -> CodebookFamily:
        """The best shape, and motion regularisation where hardness follows motion."""
        order = settings.get("forecast", 0)
        found = profile or self.recording.profile()
        plan = Plan(found.gram, found.sensitivity, order)
        warmup = settings.get("max_warmup_steps", 1)
        form = best_form(codebook_forms(plan, self.recording, warmup), self.first_count)
        if "apply_moreg" in settings:
            return form
        return form.with_moreg(self._moreg())

    def _moreg(self) -> tuple[float, float, float] | None:
        """Constants by the errors of the same schedule, evenly spread, in every case."""
        motions, hardness = [], []
        for index, (case, known) in enumerate(zip(self.cases, self.recording.cases, strict=True)):
            run = self.runner.patched(case, {"schedule": self._even})
            hardness.append(-psnr(known.outcome.squared_error(run.outcome), self.peak))
            motions.append(self.recording.motion(known.metric_motion))
            self.tell("evenly spread steps", index + 1, len(self.cases))
        hyp = fit_moreg(motions, np.array(hardness))
        return hyp if hyp[1] > 0 and _is_clear(motions, hardness) else None

    def run(self, form: SettingFamily) -> list[SearchPoint]:
        """What was tried, the best last."""
        knobs = form.knobs()
        rehearsed = [form.rehearse(knob) for knob in knobs]
        counts = [statistics.mean(len(case.steps) for case in found) for found in rehearsed]
        steps = self.recording.num_steps

        def curve() -> Curve:
            if self.target.of == "psnr":
                return Curve(self.target, knobs, [_quality(found) for found in rehearsed])
            speedups = [self.costs.speedup(steps, count) for count in counts]
            return Curve(self.target, knobs, speedups)

        first = knob_for(form, self.first_count)

        def see(knob: float) -> None:
            doing = f"round {len(self.seen) + 1} of at most {self.most}"
            if self.target.of == "psnr":
                self.seen[knob] = self._qualities(form.settings(knob), doing)
            else:
                self.seen[knob] = self._counts(form.settings(knob), doing, TIMED)

        return search(self.target, first, curve, see, self._value, self.most)

    def _value(self, knob: float) -> float:
        """Of a knob that was seen, what the target is of. Costs get known better by the round."""
        mean = statistics.mean(self.seen[knob])
        if self.target.of == "psnr":
            return mean
        return self.costs.speedup(self.recording.num_steps, mean)

    def refined(
        self, planned: dict[str, Any], settings: dict[str, Any], sweeps: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The better one of what was planned and its refined schedule; and notes."""
        profile: Profile = planned["profile"]
        plan, tries = profile.plan(settings.get("forecast", 0)), 0

        def quality(found: dict[str, Any]) -> float:
            nonlocal tries
            tries += 1
            return statistics.mean(
                self._qualities(found, f"refining, schedule {tries}", REFINED_ON)
            )

        found = refine_schedule(
            lambda steps: quality({"profile": profile, "schedule": steps}),
            plan.schedule(plan.price_for(planned["computed_steps"])),
            sweeps=sweeps,
        )
        before = quality(planned)
        values = {"planned": before, "refined": found.after}
        notes = {name: round(value, 2) for name, value in values.items()}
        notes["schedules"] = tries
        if found.after <= before:
            return planned, {"refine": notes}
        return {"profile": profile, "schedule": found.steps}, {"refine": notes}

    def _chosen(self, most: int) -> list[int]:
        """Indices of so many cases, evenly over all of them."""
        count = min(most, len(self.cases))
        return [round(index) for index in np.linspace(0, len(self.cases) - 1, count)]

    def _counts(self, settings: dict[str, Any], doing: str, most: int) -> list[float]:
        """Computed steps of `most` cases, whose costs are taken down."""
        chosen = self._chosen(most)
        counts: list[float] = []
        for done, index in enumerate(chosen, start=1):
            full = self.runner.full(self.cases[index])
            run = self.runner.patched(self.cases[index], settings)
            self.costs.add(full, run)
            counts.append(len(run.computed or []))
            self.tell(doing, done, len(chosen))
        return counts

    def _qualities(
        self, settings: dict[str, Any], doing: str, most: int | None = None
    ) -> list[float]:
        """PSNR of every case, or of `most` of them."""
        found: list[float] = []
        chosen = self._chosen(most or len(self.cases))
        for index in chosen:
            run = self.runner.patched(self.cases[index], settings)
            error = self.recording.cases[index].outcome.squared_error(run.outcome)
            found.append(psnr(error, self.peak))
            self.tell(doing, len(found), len(chosen))
        return found

    def hold_out(
        self, cases: Sequence[Case], settings: dict[str, Any]
    ) -> tuple[list[RunComparison], Costs]:
        """Unpatched and patched in turn, each first as often as the other."""
        found, costs = [], Costs()
        for index, case in enumerate(cases):
            if index % 2:
                run, full = self.runner.patched(case, settings), self.runner.full(case)
            else:
                full, run = self.runner.full(case), self.runner.patched(case, settings)
            found.append(RunComparison.of(full, run, self.peak))
            costs.add(full, run)
            self.tell("held-out cases", index + 1, len(cases))
        return found, costs


def _quality(found: Sequence[SimulatedCase]) -> float:
    """Mean PSNR up to a constant; infinite where most of the cases compute every step."""
    missed = [case.cost for case in found if case.cost > 0]
    if 2 * len(missed) < len(found):
        return math.inf
    return -10 * statistics.mean(math.log10(cost) for cost in missed)


def _is_clear(motions: Sequence[float], hardness: Sequence[float]) -> bool:
    """Whether more motion is harder by more than chance: Pearson's t above `CLEAR`."""
    logs = np.log(np.maximum(motions, TINY))
    if len(motions) < 4 or np.ptp(logs) == 0 or np.ptp(hardness) == 0:
        return False
    correlation = float(np.corrcoef(logs, hardness)[0, 1])
    if abs(correlation) >= 1:
        return correlation > 0
    return correlation * math.sqrt((len(motions) - 2) / (1 - correlation**2)) > CLEAR
