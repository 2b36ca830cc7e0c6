"""Simulations: the steps that a setting would compute in recorded cases, without generating them.

A family of settings has one knob. The larger the knob, the more steps are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..schedule import AdaCachePolicy, Decision, Plan, Policy, ProfilePolicy
from ..schedule.codebook import Codebook
from ..schedule.presets import moreg_window
from ..schedule.profile import Profile, forecast_error
from .record import Array, CalibrationRecording
from .recorded_case import RecordedCase


@dataclass(frozen=True)
class SimulatedCase:
    """A recorded case under a setting.

    Args:
        steps: computed ones, counted from 1.
        cost: expected error of the outcome, up to a factor.
    """

    steps: list[int]
    cost: float


class SettingFamily(Protocol):
    """A family of settings with one knob."""

    def knobs(self) -> list[float]:
        """Return rising knobs, from the fewest computed steps to all of them."""

    def settings(self, knob: float) -> dict[str, Any]:
        """Return the settings for `patch`."""

    def simulate(self, knob: float) -> list[SimulatedCase]:
        """Simulate every recorded case."""


class ProfileFamily:
    """The plans of a profile; the knob is `computed_steps`.

    Args:
        profile: of the recorded model.
        recording: the cases.
        settings: for `patch`, without those of the schedule.
    """

    def __init__(
        self, profile: Profile, recording: CalibrationRecording, settings: Mapping[str, Any]
    ) -> None:
        self._profile = profile
        self._cases = recording.cases
        self._order = settings.get("forecast", 0)
        self._adaptivity = settings.get("adaptivity", 1.0)
        self._warmup = settings.get("max_warmup_steps", 1)
        self._plan = profile.plan(self._order)

    def knobs(self) -> list[float]:
        """Return 16 numbers of computed steps."""
        # They are closer together for few steps, where one more step is a larger part of them.
        fewest, most = self._plan.fewest, self._plan.most
        return [float(f"{knob:.4g}") for knob in np.geomspace(fewest, most, 16)]

    def settings(self, knob: float) -> dict[str, Any]:
        """Return the settings for `patch`."""
        return {"profile": self._profile, "computed_steps": knob}

    def simulate(self, knob: float) -> list[SimulatedCase]:
        """Simulate every recorded case."""
        price = self._plan.price_for(knob)
        expected = partial(self._profile.expected_error, self._order)
        simulated = []
        for case in self._cases:
            policy = ProfilePolicy(
                self._plan, price, expected, self._adaptivity, warmup_steps=self._warmup
            )
            measure = partial(self._measure, case)
            simulated.append(_simulated_case(self._plan, policy, measure))
        return simulated

    def _measure(self, case: RecordedCase, history: Sequence[int], step: int) -> Decision:
        if not history:
            return Decision(step, 1, None, None, 1.0)
        error = forecast_error(self._profile.gram, case.span_grams, self._order, history, step)
        distance = error / (step - history[0])
        return Decision(step, 1, distance, distance, 1.0)


class CodebookFamily:
    """The paper's codebook, of one shape; the knob is 1 / scale of its thresholds.

        {scale / r ** power: r}        r from the highest rate to 2, and 1 beyond

    Args:
        plan: of the recorded model; gives the error of a schedule.
        recording: the cases, with distances.
        power, highest: the shape: exponent of the rates, and the highest rate.
        moreg_hyp: constants of MoReg; None turns it off.
        warmup: first steps that are always computed.
    """

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
        """Return the same family with MoReg."""
        return CodebookFamily(
            self._plan, self._recording, self._power, self._highest, moreg_hyp, self._warmup
        )

    def knobs(self) -> list[float]:
        """Return 24 knobs: at the first, every distance has the highest rate; at the last, 1.

        Raises:
            ValueError: all distances are zero.
        """
        known = np.concatenate([np.diag(_distances(case), 1) for case in self._recording.cases])
        known = known[np.isfinite(known) & (known > 0)]
        if not len(known):
            raise ValueError("the metric residual never changes; no codebook can be fitted to it")
        most = 2 * float(known.max()) * self._highest**self._power
        least = float(known.min()) * 2**self._power / 2
        return [float(f"{knob:.4g}") for knob in np.geomspace(1 / most, 1 / least, 24)]

    def settings(self, knob: float) -> dict[str, Any]:
        """Return the settings for `patch`."""
        settings: dict[str, Any] = {"codebook": self.codebook(knob)}
        if self._moreg_hyp is not None:
            settings |= {"apply_moreg": True, "moreg_hyp": self._moreg_hyp, "mograd_mul": 0.0}
        return settings

    def codebook(self, knob: float) -> Codebook:
        """Return the codebook, its thresholds rounded to four digits."""
        rates = tuple(range(self._highest, 1, -1))
        thresholds = [float(f"{1 / (knob * rate**self._power):.4g}") for rate in rates]
        return Codebook((*thresholds, math.inf), (*rates, 1))

    def simulate(self, knob: float) -> list[SimulatedCase]:
        """Simulate every recorded case."""
        codebook = self.codebook(knob)
        simulated = []
        for case in self._recording.cases:
            policy = AdaCachePolicy(self._plan.num_steps, self._warmup)
            measure = partial(self._measure, case, codebook)
            simulated.append(_simulated_case(self._plan, policy, measure))
        return simulated

    def _measure(
        self, case: RecordedCase, codebook: Codebook, history: Sequence[int], step: int
    ) -> Decision:
        if not history:
            return Decision(step, 1, None, None, 1.0)
        before = history[0]
        raw = float(_distances(case)[before - 1, step - 1]) / (step - before)
        score = self._moreg_score(case, step)
        return Decision(step, codebook.rate(raw * score), raw * score, raw, score)

    def _moreg_score(self, case: RecordedCase, step: int) -> float:
        if self._moreg_hyp is None or not self._window[0] <= step <= self._window[1]:
            return 1.0
        a, b, d = self._moreg_hyp
        return float((case.metric_motion[step - 1] / a) ** b / d)


def knob_for(family: SettingFamily, computed: float) -> float:
    """Return the knob with which the recorded cases compute about `computed` steps on average."""
    knobs = family.knobs()
    counts = [np.mean([len(case.steps) for case in family.simulate(knob)]) for knob in knobs]
    rising = np.maximum.accumulate(counts)
    # Of knobs with equal counts, the smallest: a larger one reaches nothing more.
    first = [i for i in range(len(rising)) if i == 0 or rising[i] > rising[i - 1]]
    logs = np.log(np.asarray(knobs)[first])
    return float(f"{math.exp(np.interp(computed, rising[first], logs)):.4g}")


def _simulated_case(
    plan: Plan, policy: Policy, measure: Callable[[Sequence[int], int], Decision]
) -> SimulatedCase:
    """Simulate a generation; `measure` takes the computed steps so far, newest first, and a step.

    Its cost is the plan's expected error.
    """
    steps: list[int] = []
    last: Decision | None = None
    for step in range(1, plan.num_steps + 1):
        if policy.compute(step, last):
            last = policy.observe(measure(steps[::-1], step))
            steps.append(step)
    return SimulatedCase(steps, sum(cost for _, cost in plan.intervals(steps)))


def _distances(case: RecordedCase) -> Array:
    assert case.distances is not None
    return case.distances
