"""The choice of a codebook's shape, and of MoReg, for recorded cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..schedule import Plan
from ..schedule.profile import Profile
from .make_profile import fit_moreg
from .measured_cases import MeasuredCases
from .objectives import Objective
from .record import CalibrationRecording, Case
from .simulate import CodebookFamily, SettingFamily

# Thresholds of the rates r of a codebook are scale / r ** power. With a power of 1, a residual
# changes by about `scale` between two computed steps at every rate. For the published "fast"
# codebook at 30 steps, that is about 0.5.
POWERS = (0.5, 1.0, 1.5)
HIGHEST_RATES = (3, 4, 6, 9)
TINY = 1e-30
# Standard errors from which on a correlation of motion and hardness counts.
CLEAR = 2.0


def choose_codebook(
    objective: Objective[Case],
    measured: MeasuredCases[Case],
    profile: Profile | None,
) -> CodebookFamily:
    """Return the family of the best shape, with MoReg if cases with more motion are harder.

    Args:
        objective: gives the number of computed steps at which shapes are compared.
        measured: the cases; they are generated once to measure their hardness, unless the runner's
            settings have `apply_moreg`.
        profile: gives the sensitivity; None for an equal sensitivity of all steps.
    """
    settings = measured.runner.settings
    known = profile or measured.recording.profile()
    plan = Plan(known.gram, known.sensitivity, settings.get("forecast", 0))
    warmup = settings.get("max_warmup_steps", 1)
    families = codebook_families(plan, measured.recording, warmup)
    family = best_family(families, objective.first_count)
    if "apply_moreg" in settings:
        return family
    return family.with_moreg(_fitted_moreg(measured, objective.even_steps))


def codebook_families(
    plan: Plan, recording: CalibrationRecording, warmup: int = 1
) -> list[CodebookFamily]:
    """Return a family for every shape."""
    return [
        CodebookFamily(plan, recording, power, highest, warmup=warmup)
        for power, highest in itertools.product(POWERS, HIGHEST_RATES)
    ]


def best_family(families: Sequence[CodebookFamily], computed: float) -> CodebookFamily:
    """Return the family with the least error in the recorded cases at `computed` steps.

    An error falls steeply with the number of computed steps, and no knob meets it exactly. So the
    logarithm of the error is interpolated between the two nearest knobs.
    """
    return min(families, key=lambda family: _error_at(family, computed))


def _error_at(family: SettingFamily, computed: float) -> tuple[float, float]:
    """Return log error and 0, or infinity and the fewest steps if `computed` is out of reach."""
    simulated = [family.simulate(knob) for knob in family.knobs()]
    points = sorted(
        (
            float(np.mean([len(case.steps) for case in cases])),
            float(np.mean([math.log(case.cost + TINY) for case in cases])),
        )
        for cases in simulated
    )
    counts, errors = zip(*points, strict=True)
    if not counts[0] <= computed <= counts[-1]:
        return math.inf, counts[0]
    return float(np.interp(computed, counts, errors)), 0.0


def _fitted_moreg(
    measured: MeasuredCases[Case], even_steps: list[int]
) -> tuple[float, float, float] | None:
    """Fit MoReg to the errors of all cases with one evenly spread schedule."""
    psnrs = measured.psnrs({"schedule": even_steps}, "evenly spread steps")
    hardness = [-psnr for psnr in psnrs]
    recording = measured.recording
    motions = [recording.mean_motion(case.metric_motion) for case in recording.cases]
    hyp = fit_moreg(motions, np.array(hardness))
    return hyp if hyp[1] > 0 and is_harder_with_motion(motions, hardness) else None


def is_harder_with_motion(motions: Sequence[float], hardness: Sequence[float]) -> bool:
    """Return whether hardness rises with motion by more than chance: Pearson's t above `CLEAR`.

    Args:
        motions: motion score of each case.
        hardness: of each case, in dB.
    """
    logs = np.log(np.maximum(motions, TINY))
    if len(motions) < 4 or np.ptp(logs) == 0 or np.ptp(hardness) == 0:
        return False
    correlation = float(np.corrcoef(logs, hardness)[0, 1])
    if abs(correlation) >= 1:
        return correlation > 0
    return correlation * math.sqrt((len(motions) - 2) / (1 - correlation**2)) > CLEAR
