"""Rehearsals: which steps a setting would compute on recorded cases, before any is generated.

A form is a family of settings with one knob. The larger the knob, the more steps are computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..config.calibration_file import Kind
from ..schedule import AdaCachePolicy, Decision, Plan, Policy, ProfilePolicy
from ..schedule.codebook import Codebook
from ..schedule.presets import moreg_window
from ..schedule.profile import Profile, forecast_error
from .record import Array, CalibrationRecording, Recorded

# Thresholds of the rates r of a codebook are scale / r ** POWER: with 1, a residual changes by
# about `scale` between two computed steps, whatever the rate. With the published "fast" one at 30
# steps, that is about 0.5.
POWERS = (0.5, 1.0, 1.5)
HIGHEST_RATES = (3, 4, 6, 9)
TINY = 1e-30


@dataclass(frozen=True)
class SimulatedCase:
    """A recorded case under a setting: the steps computed, and the error up to a factor."""

    steps: list[int]
    cost: float


class SettingFamily(Protocol):
    """A family of settings with one knob."""

    kind: Kind

    def knobs(self) -> list[float]:
        """Some, rising, from the fewest to all computed steps."""

    def settings(self, knob: float) -> dict[str, Any]:
        """For `patch`."""

    def rehearse(self, knob: float) -> list[SimulatedCase]:
        """Every recorded case."""


class ProfileFamily:
    """Plans of a profile; the knob is `computed_steps`."""

    kind: Kind = "profile"

    def __init__(
        self, profile: Profile, recording: CalibrationRecording, settings: dict[str, Any]
    ) -> None:
        self._profile = profile
        self._cases = recording.cases
        self._order = settings.get("forecast", 0)
        self._adaptivity = settings.get("adaptivity", 1.0)
        self._warmup = settings.get("max_warmup_steps", 1)
        self._plan = profile.plan(self._order)

    def knobs(self) -> list[float]:
        # Closer where steps are few, as a step more is a larger part of them.
        fewest, most = self._plan.fewest, self._plan.most
        return [float(f"{knob:.4g}") for knob in np.geomspace(fewest, most, 16)]

    def settings(self, knob: float) -> dict[str, Any]:
        return {"profile": self._profile, "computed_steps": knob}

    def rehearse(self, knob: float) -> list[SimulatedCase]:
        price = self._plan.price_for(knob)
        expected = partial(self._profile.expected_error, self._order)
        found = []
        for case in self._cases:
            policy = ProfilePolicy(
                self._plan, price, expected, self._adaptivity, warmup_steps=self._warmup
            )
            steps = follow(policy, self._plan.num_steps, partial(self._measure, case))
            found.append(SimulatedCase(steps, _cost(self._plan, steps)))
        return found

    def _measure(self, case: Recorded, history: Sequence[int], step: int) -> Decision:
        if not history:
            return Decision(step, 1, None, None, 1.0)
        error = forecast_error(self._profile.gram, case.span_grams, self._order, history, step)
        distance = error / (step - history[0])
        return Decision(step, 1, distance, distance, 1.0)


class CodebookFamily:
    """The paper's codebook, of one shape; the knob is 1 / scale of its thresholds.

        {scale / r ** power: r}        r from the highest rate to 2, and 1 beyond

    Args:
        plan: tells the error of a schedule.
        recording: with distances.
        power, highest: the shape.
        moreg_hyp: constants of motion regularisation; None: there is none.
        warmup: first steps that are always computed.
    """

    kind: Kind = "codebook"

    def __init__(
        self,
        plan: Plan,
        recording: CalibrationRecording,
        power: float,
        highest: int,
        moreg_hyp: tuple[float, float, float] | None = None,
        warmup: int = 1,
    ) -> None:
        self._plan = plan
        self._recording = recording
        self._power, self._highest = power, highest
        self._moreg_hyp = moreg_hyp
        self._warmup = warmup
        self._window = moreg_window(recording.num_steps)

    def with_moreg(self, moreg_hyp: tuple[float, float, float] | None) -> CodebookFamily:
        """The same with motion regularisation."""
        return CodebookFamily(
            self._plan, self._recording, self._power, self._highest, moreg_hyp, self._warmup
        )

    def knobs(self) -> list[float]:
        known = np.concatenate([np.diag(_distances(case), 1) for case in self._recording.cases])
        known = known[np.isfinite(known) & (known > 0)]
        if not len(known):
            raise ValueError("the metric residual never changes; no codebook can be fitted to it")
        # From: all distances get the highest rate; to: all get 1.
        most = 2 * float(known.max()) * self._highest**self._power
        least = float(known.min()) * 2**self._power / 2
        return [float(f"{knob:.4g}") for knob in np.geomspace(1 / most, 1 / least, 24)]

    def settings(self, knob: float) -> dict[str, Any]:
        settings: dict[str, Any] = {"codebook": self.codebook(knob)}
        if self._moreg_hyp is not None:
            settings |= {"apply_moreg": True, "moreg_hyp": self._moreg_hyp, "mograd_mul": 0.0}
        return settings

    def codebook(self, knob: float) -> Codebook:
        """Thresholds to four digits."""
        rates = tuple(range(self._highest, 1, -1))
        thresholds = [float(f"{1 / (knob * rate**self._power):.4g}") for rate in rates]
        return Codebook((*thresholds, math.inf), (*rates, 1))

    def rehearse(self, knob: float) -> list[SimulatedCase]:
        codebook, found = self.codebook(knob), []
        for case in self._recording.cases:
            policy = AdaCachePolicy(self._plan.num_steps, self._warmup)
            steps = follow(policy, self._plan.num_steps, partial(self._measure, case, codebook))
            found.append(SimulatedCase(steps, _cost(self._plan, steps)))
        return found

    def _measure(
        self, case: Recorded, codebook: Codebook, history: Sequence[int], step: int
    ) -> Decision:
        if not history:
            return Decision(step, 1, None, None, 1.0)
        before = history[0]
        raw = float(_distances(case)[before - 1, step - 1]) / (step - before)
        score = self._score(case, step)
        return Decision(step, codebook.rate(raw * score), raw * score, raw, score)

    def _score(self, case: Recorded, step: int) -> float:
        if self._moreg_hyp is None or not self._window[0] <= step <= self._window[1]:
            return 1.0
        a, b, d = self._moreg_hyp
        return float((case.metric_motion[step - 1] / a) ** b / d)


def follow(
    policy: Policy, num_steps: int, measure: Callable[[Sequence[int], int], Decision]
) -> list[int]:
    """Computed steps of a generation; `measure` from a history (newest first) and a step."""
    steps: list[int] = []
    last: Decision | None = None
    for step in range(1, num_steps + 1):
        if policy.compute(step, last):
            last = policy.observe(measure(steps[::-1], step))
            steps.append(step)
    return steps


def codebook_forms(
    plan: Plan, recording: CalibrationRecording, warmup: int = 1
) -> list[CodebookFamily]:
    """One of every shape."""
    return [
        CodebookFamily(plan, recording, power, highest, warmup=warmup)
        for power, highest in itertools.product(POWERS, HIGHEST_RATES)
    ]


def knob_for(form: SettingFamily, computed: float) -> float:
    """The knob at which the recorded cases compute about so many steps on average."""
    knobs = form.knobs()
    counts = [np.mean([len(case.steps) for case in form.rehearse(knob)]) for knob in knobs]
    rising = np.maximum.accumulate(counts)
    # Of equal counts, the largest knob would tell nothing more.
    first = [i for i in range(len(rising)) if i == 0 or rising[i] > rising[i - 1]]
    logs = np.log(np.asarray(knobs)[first])
    return float(f"{math.exp(np.interp(computed, rising[first], logs)):.4g}")


def best_form(forms: Sequence[CodebookFamily], computed: float) -> CodebookFamily:
    """The one whose error, on the recorded cases, is the least at about so many steps.

    An error falls steeply with the number of computed steps, which is only about the same: they
    are compared by the logarithm of the error at `computed`, between the two knobs around it.
    """
    return min(forms, key=lambda form: _error_at(form, computed))


def _error_at(form: SettingFamily, computed: float) -> tuple[float, float]:
    """Where a form does not go down so far, how far it does."""
    points = sorted(
        (
            float(np.mean([len(case.steps) for case in found])),
            float(np.mean([math.log(case.cost + TINY) for case in found])),
        )
        for found in (form.rehearse(knob) for knob in form.knobs())
    )
    counts, errors = zip(*points, strict=True)
    if not counts[0] <= computed <= counts[-1]:
        return math.inf, counts[0]
    return float(np.interp(computed, counts, errors)), 0.0


def _distances(case: Recorded) -> Array:
    assert case.distances is not None
    return case.distances


def _cost(plan: Plan, steps: Sequence[int]) -> float:
    return sum(cost for _, cost in plan.intervals(steps))
