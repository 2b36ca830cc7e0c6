"""A profile from a few generations of a pipeline.

First, full generations are recorded: the inner products of the residuals of any two steps tell what
every forecast of every schedule would have missed. Then the same generations are repeated with
schedules drawn at random, and the sensitivity of the outcome at each step is fitted to what they
did to it (`sensitivity.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..schedule import Plan, evenly_spread
from ..schedule.profile import Profile
from .fit_sensitivity import KNOTS, Trial, fit_sensitivity
from .outcomes import as_array
from .record import Array, CalibrationRecording, Case, Progress, no_progress, patched, record

# Computed steps of the random schedules, as parts of all; how far their steps are moved, as a part
# of the mean interval; the deviation of the logarithms of the sensitivities that they are made for.
BUDGETS = (0.18, 0.24, 0.30, 0.38, 0.50)
JITTER = 0.4
SPREAD = 1.0
# Plans of random sensitivities to draw schedules from.
PLANS = 8


def make_profile(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    *,
    trials: int = 12,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Profile:
    """A profile of `pipe`'s transformer and scheduler at the number of steps of `generate`.

    Args:
        pipe: an unpatched pipeline, or a bare model.
        cases: what to generate, such as pairs of prompt and seed; a dozen or more of all kinds, and
            other ones than the profile will be judged by.
        generate: from a case to its outcome, a tensor or array (the video, or its latents), the
            same whenever it is called.
        trials: generations with a random schedule for each case.
        seed: of the schedules.
        progress: called with what is being done, how many have been, and of how many.
        settings: for `patch`. By default forecast=1 and correct=True, as the profile is best used.

    Raises:
        ValueError: fewer than two cases, no trial, generations too short to reuse anything,
            settings that choose steps, or outcomes that are not finite or that no schedule changes.
    """
    check_cases(len(cases), trials)
    check_settings(settings)
    settings = {"forecast": 1, "correct": True} | settings
    tell = progress or no_progress
    recording = record(pipe, cases, generate, settings, tell)
    return fit_profile(pipe, cases, generate, recording, settings, trials, seed, tell)


def check_cases(cases: int, trials: int) -> None:
    """Refuse what is too little to learn from."""
    if cases < 2 or trials < 1:
        raise ValueError(
            f"there are {cases} cases and {trials} trials; calibration needs at least two cases "
            "and one trial"
        )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that calibration makes."""
    planned = {"codebook", "computed_steps", "calibrated_for", "profile", "schedule"} & {*settings}
    if planned:
        raise ValueError(f"{', '.join(sorted(planned))}: calibration sets the schedules itself")


def fit_profile(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    recording: CalibrationRecording,
    settings: dict[str, Any],
    trials: int,
    seed: int,
    tell: Progress,
) -> Profile:
    """The profile of recorded cases, which are generated again with random schedules."""
    order = settings.get("forecast", 0)
    profile = recording.profile()
    plan = Plan(profile.gram, np.ones(profile.num_steps), order)
    draw = random.Random(seed)
    plans = [_random_plan(profile, order, draw) for _ in range(PLANS)]
    found: list[Trial] = []
    for done in range(trials * len(cases)):
        case = done % len(cases)
        steps = random_schedule(draw.choice(plans), draw)
        with patched(pipe, settings | {"profile": profile, "schedule": steps}):
            outcome = as_array(generate(cases[case]))
        error = recording.cases[case].outcome.squared_error(outcome)
        if not np.isfinite(error):
            raise ValueError(f"the outcome of {cases[case]!r} is not finite with schedule {steps}")
        if error > 0:
            found.append(Trial(case, steps, error))
        tell("random schedules", done + 1, trials * len(cases))
    unmoved = sorted(set(range(len(cases))) - {trial.case for trial in found})
    if unmoved:
        raise ValueError(
            f"no schedule changed the outcome of {cases[unmoved[0]]!r}; is it what was generated?"
        )
    sensitivity, hardness, unexplained = fit_sensitivity(plan, found)
    motions = [recording.motion(case.motion) for case in recording.cases]
    notes = {
        "cases": len(cases),
        "trials": len(found),
        "settings": settings,
        "motion": [float(f"{value:.3g}") for value in motions],
        "hardness_db": [round(float(value), 1) for value in hardness],
        "unexplained_db": round(unexplained, 2),
    }
    moreg_hyp = fit_moreg(motions, hardness)
    return replace(profile, sensitivity=sensitivity, moreg_hyp=moreg_hyp, notes=notes)


def fit_moreg(motions: Sequence[float], hardness: Array) -> tuple[float, float, float]:
    """(a, b, 1) of `score = (motion / a) ** b`, the error of a case over the mean one's.

    Least squares of hardness = 20 b log10(motion / a) + constant, in dB of the squared error, with
    `a` the geometric mean. Where more motion is not harder, or nothing moves, b is 0.
    """
    logs = np.log10(np.maximum(motions, 1e-12))
    if np.ptp(logs) < 1e-6:
        return 1.0, 0.0, 1.0
    slope = float(np.polyfit(logs, hardness, 1)[0])
    return float(10 ** logs.mean()), max(0.0, slope / 20), 1.0


def random_schedule(plan: Plan, draw: random.Random) -> list[int]:
    """A schedule at a random budget: planned or evenly spread, and then moved about a little."""
    budget = max(4, round(draw.choice(BUDGETS) * plan.num_steps))
    if draw.random() < 0.5:
        steps = evenly_spread(min(budget, plan.num_steps), plan.num_steps)
    else:
        steps = plan.schedule(plan.price_for(max(budget, plan.fewest)))
    reach = JITTER * plan.num_steps / budget
    moved = {step + round(draw.uniform(-reach, reach)) for step in steps[1:-1]}
    return sorted({step for step in moved if 1 < step < plan.num_steps} | {1, plan.num_steps})


def _random_plan(profile: Profile, order: int, draw: random.Random) -> Plan:
    knots = [draw.gauss(0, SPREAD) for _ in range(KNOTS)]
    steps = np.linspace(0, KNOTS - 1, profile.num_steps)
    return Plan(profile.gram, np.exp(np.interp(steps, range(KNOTS), knots)), order)
