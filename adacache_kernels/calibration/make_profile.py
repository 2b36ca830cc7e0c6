"""`make_profile`: a profile from a few generations of a pipeline.

First, it records full generations: the Gram matrix of their residuals gives the forecast error of
any schedule. Then it repeats them with random schedules, and fits the sensitivity of the outcome at
each step to their errors (`fit_sensitivity.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..schedule import Plan, evenly_spread
from ..schedule.profile import Profile
from .checkpoint import Checkpoint, request_for
from .fit_sensitivity import KNOTS, Trial, fit_sensitivity
from .measured_cases import MeasuredCases
from .record import Array, Case, Progress, no_progress, record
from .timed_runs import Runner

# Random schedules: their computed steps, as parts of all steps; the most that a step moves, as a
# part of the mean interval; the deviation of the logarithms of the random sensitivities.
BUDGETS = (0.18, 0.24, 0.30, 0.38, 0.50)
JITTER = 0.4
SPREAD = 1.0
# Plans with random sensitivities that schedules are drawn from.
PLANS = 8


def make_profile(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    *,
    trials: int = 12,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
    **settings: Any,
) -> Profile:
    """Make a profile of a transformer and scheduler, for one number of steps.

    Args:
        pipe: an unpatched pipeline, or a bare model.
        cases: arguments of `generate`, such as pairs of prompt and seed. Use a dozen or more of all
            kinds, and evaluate the profile on other ones.
        generate: from a case to its outcome, a tensor or array (the video, or its latents). It must
            return the same outcome whenever it is called.
        trials: generations with a random schedule for each case.
        seed: of the schedules.
        progress: called after each generation with a description, the number of generations so
            far, and their total.
        checkpoint: folder in which each measurement is stored, see `calibrate`.
        settings: for `patch`. The defaults are forecast=1 and correct=True, which suit a profile
            best.

    Raises:
        ValueError: there are fewer than two cases or no trial; generations are too short to reuse
            anything; the settings choose steps; an outcome is not finite, or no schedule changes
            it; or the checkpoint is of another request or model.
        OSError: the checkpoint cannot be written.
    """
    check_cases(len(cases), trials)
    check_settings(settings)
    settings = {"forecast": 1, "correct": True} | settings
    progress = progress or no_progress
    described = repr(sorted(settings.items()))
    request = request_for(pipe, cases, trials=trials, seed=seed, settings=described)
    stored = Checkpoint(checkpoint, request)
    recording = record(pipe, cases, generate, settings, progress, stored)
    runner = Runner(pipe, generate, recording.num_steps, settings)
    measured = MeasuredCases(
        cases, recording, runner, peak=1.0, progress=progress, checkpoint=stored
    )
    return fit_profile(measured, trials, seed)


def check_cases(cases: int, trials: int) -> None:
    """Check that there are at least two cases and a trial.

    Raises:
        ValueError: there are not.
    """
    if cases < 2 or trials < 1:
        raise ValueError(
            f"there are {cases} cases and {trials} trials; calibration needs at least two cases "
            "and one trial"
        )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check that the settings leave the schedule to the calibration.

    Raises:
        ValueError: they choose steps.
    """
    planned = {"codebook", "computed_steps", "calibrated_for", "profile", "schedule"} & set(
        settings
    )
    if planned:
        raise ValueError(
            f"{', '.join(sorted(planned))}: calibration sets the schedules itself; leave these "
            "settings out"
        )


def fit_profile(measured: MeasuredCases[Case], trials: int, seed: int) -> Profile:
    """Fit a profile to recorded cases, which are generated again with random schedules.

    Args:
        measured: the cases; the runner's settings are those of the profile.
        trials: generations with a random schedule for each case.
        seed: of the schedules.

    Raises:
        ValueError: an outcome is not finite, or no schedule changes it.
    """
    cases, recording, settings = measured.cases, measured.recording, measured.runner.settings
    profile, order = recording.profile(), settings.get("forecast", 0)
    done = _run_trials(measured, profile, order, trials, random.Random(seed))
    unchanged = sorted(set(range(len(cases))) - {trial.case for trial in done})
    if unchanged:
        raise ValueError(
            f"no schedule changed the outcome of {cases[unchanged[0]]!r}; check that generate "
            "returns the result of the patched pipeline"
        )
    plan = Plan(profile.gram, np.ones(profile.num_steps), order)
    sensitivity, hardness, unexplained = fit_sensitivity(plan, done)
    motions = [recording.mean_motion(case.motion) for case in recording.cases]
    notes = {
        "cases": len(cases),
        "trials": len(done),
        "settings": settings,
        "motion": [float(f"{value:.3g}") for value in motions],
        "hardness_db": [round(float(value), 1) for value in hardness],
        "unexplained_db": round(unexplained, 2),
    }
    moreg_hyp = fit_moreg(motions, hardness)
    return replace(profile, sensitivity=sensitivity, moreg_hyp=moreg_hyp, notes=notes)


def _run_trials(
    measured: MeasuredCases[Case], profile: Profile, order: int, trials: int, draw: random.Random
) -> list[Trial]:
    """Generate every case with random schedules, and return the trials with an error."""
    plans = [_random_plan(profile, order, draw) for _ in range(PLANS)]
    total = trials * len(measured.cases)
    generations: list[tuple[int, dict[str, Any]]] = []
    for number in range(total):
        steps = random_schedule(draw.choice(plans), draw)
        case = number % len(measured.cases)
        generations.append((case, {"profile": profile, "schedule": steps}))
    done: list[Trial] = []
    errors = measured.squared_errors(generations)
    for number, ((case, settings), error) in enumerate(zip(generations, errors, strict=True)):
        if error > 0:
            done.append(Trial(case, settings["schedule"], error))
        measured.progress("random schedules", number + 1, total)
    return done


def fit_moreg(motions: Sequence[float], hardness: Array) -> tuple[float, float, float]:
    """Fit (a, b, 1) of `score = (motion / a) ** b`, the error of a case relative to the mean.

    It is the least-squares fit of hardness = 20 b log10(motion / a) + constant, with `a` the
    geometric mean of the motions. b is 0 if more motion is not harder, or if nothing moves.

    Args:
        motions: motion score of each case.
        hardness: `[cases]`, in dB of the squared error.
    """
    logs = np.log10(np.maximum(motions, 1e-12))
    if np.ptp(logs) < 1e-6:
        return 1.0, 0.0, 1.0
    slope = float(np.polyfit(logs, hardness, 1)[0])
    return float(10 ** logs.mean()), max(0.0, slope / 20), 1.0


def random_schedule(plan: Plan, draw: random.Random) -> list[int]:
    """Draw a schedule with a random budget: planned or evenly spread, with its steps jittered."""
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
