"""`calibrate`: settings for a target, a speedup or a PSNR, and how far held-out cases are from it.

Full generations are recorded once; schedules are rehearsed on the recordings; only what is expected
to be right is generated, a few times, and what was learnt from that corrects what is expected.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from ..config.calibration_file import Calibration, Kind, Target, is_calibration
from ..config.validation import check_choice, check_int, parse_profile
from ..schedule.calibrated_for import CalibratedFor
from ..schedule.profile import Profile
from .generation_rounds import GenerationRounds
from .make_profile import check_settings, fit_profile
from .outcomes import MOST_PSNR, StoredOutcome
from .record import Case, Progress, no_progress, record
from .simulate import ProfileFamily, SettingFamily
from .timed_runs import Runner, reached

# Part of the cases that is held out.
HELD_OUT = 0.25
FEWEST_CASES = 2


def calibrate(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    *,
    target_speedup: float | None = None,
    target_psnr: float | None = None,
    kind: Kind = "profile",
    held_out: Sequence[Case] | None = None,
    profile: Profile | Calibration | str | Path | None = None,
    trials: int = 6,
    rounds: int = 4,
    refine: int = 0,
    peak: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Calibration:
    """Settings of `patch` that reach a target with `pipe` at the number of steps of `generate`.

    Args:
        pipe: an unpatched pipeline with one transformer, or a bare model.
        cases: what to generate, such as pairs of prompt and seed; two dozen or more, all different.
        generate: from a case to its outcome, a tensor or array (the video), the same whenever it is
            called.
        target_speedup: of the seconds in the transformer, of all cases together.
        target_psnr: in dB against the unpatched outcome, mean over the cases. A standard error of 1
            dB takes about 25 cases where videos differ by 5 dB.
        kind: "profile", a plan with forecasts, the better one by several dB; "codebook", the
            paper's, which keeps one residual instead of three.
        held_out: cases that nothing is fitted to. None: a quarter of `cases`, drawn at random.
        profile: one that was made before, of this model, scheduler and number of steps; else one is
            made here for the kind "profile". May be a calibration that has one, or a file of
            either. A codebook takes only its sensitivity.
        trials: generations with a random schedule for each case, for a profile that is made here.
        rounds: of generations that correct what is expected.
        refine: sweeps of direct search over the steps of the profile's schedule, which is then the
            same for every video: twice the computed steps, times the cases (`REFINED_ON` at most),
            generations a sweep. It gained 0.3 to 2.3 dB on the demo. With target_speedup only.
        peak: highest value less lowest one that an outcome may have. None: 1 for floats, which then
            must be 0 to 1.
        seed: of the held-out cases and random schedules.
        progress: called with what is being done, how many have been, and of how many.
        settings: more of them for `patch`; for a profile forecast=1 and correct=True by default.

    It takes, for N cases to fit to and H held out, N generations in full, N * `trials` with about
    a third of the steps for a profile that is made here, 2 * H at last, and for each round 24 for a
    speedup (half of them in full, and 12 more at first) or N for a PSNR. A codebook takes N more.
    Of an outcome, a million elements are kept (4 MB); of the residuals of a generation, while it
    runs, 65536 elements for each step, block list and branch (0.25 MB).

    Raises:
        ValueError: not one target, or one that cannot be reached; too few cases; settings that
            choose steps; a profile of something else; outcomes that are not finite, or outside of 0
            to 1.
    """
    target = target_of(target_speedup, target_psnr)
    check_choice("kind", kind, get_args(Kind))
    check_int("trials", trials, at_least=1)
    check_int("rounds", rounds, at_least=1)
    _check_refine(refine, target, kind)
    check_settings(settings)
    check_peak(peak)
    given = _profile_of(profile)
    train, kept = _split(cases, held_out, seed)
    if kind == "profile":
        settings = {"forecast": 1, "correct": True} | settings
    tell = progress or no_progress

    def accept(made_for: CalibratedFor, outcome: StoredOutcome) -> None:
        check_range(outcome, peak)
        if given is not None:
            given.calibrated_for.check(
                made_for.model,
                made_for.scheduler,
                made_for.num_steps,
                "the profile",
                "without profile=",
            )

    recording = record(pipe, train, generate, settings, tell, accept, distances=kind == "codebook")
    generations = GenerationRounds(
        target=target,
        recording=recording,
        cases=train,
        runner=Runner(pipe, generate, recording.num_steps, settings),
        peak=1.0 if peak is None else peak,
        most=rounds,
        tell=tell,
    )
    form: SettingFamily
    if kind == "profile":
        made = given or fit_profile(pipe, train, generate, recording, settings, trials, seed, tell)
        generations.measure_costs({"profile": made})
        form = ProfileFamily(made, recording, settings)
    else:
        made = None
        generations.measure_costs({})
        form = generations.codebook_form(settings, given)
    tried = generations.run(form)
    best = form.settings(tried[-1].knob)
    refined: dict[str, Any] = {}
    if refine:
        best, refined = generations.refined(best, settings, refine)
    held, costs = generations.hold_out(kept, best)
    return Calibration(
        kind=kind,
        settings={**settings, **{name: best[name] for name in best if name != "profile"}},
        calibrated_for=recording.made_for,
        target=target,
        held_out=reached(held, costs, recording.num_steps),
        profile=made,
        notes={
            "cases": len(train),
            "tried": [[one.knob, float(f"{one.value:.4g}")] for one in reversed(tried)],
            "held_out_psnr": [round(one.psnr, 2) for one in held],
            "held_out_speedup": [round(one.speedup, 3) for one in held],
            "held_out_computed": [one.computed for one in held],
            **refined,
        },
    )


def check_peak(peak: float | None) -> None:
    """Refuse one that is no range."""
    if peak is not None and not (math.isfinite(peak) and peak > 0):
        raise ValueError(f"peak is {peak}; it must be above 0, the range of an outcome's values")


def check_range(outcome: StoredOutcome, peak: float | None) -> None:
    """A PSNR needs to know the range of the values: refuse others than 0 to 1 without `peak`."""
    if peak is None and (outcome.lowest < 0 or outcome.highest > 1):
        raise ValueError(
            f"an outcome has values from {outcome.lowest:.4g} to {outcome.highest:.4g}; generate "
            "frames in 0 to 1, or give peak=, the range that their values may have (255 for eight "
            "bits)"
        )


def target_of(speedup: float | None, quality: float | None) -> Target:
    """The one that is given.

    Raises:
        TypeError: no number.
        ValueError: none, two, or one that makes no sense.
    """
    for name, given in (("target_speedup", speedup), ("target_psnr", quality)):
        if isinstance(given, bool) or not isinstance(given, int | float | None):
            raise TypeError(f"{name} is {given!r}; it must be a number")
    if (speedup is None) == (quality is None):
        raise ValueError(
            f"target_speedup is {speedup} and target_psnr {quality}; give one of the two"
        )
    if speedup is not None:
        if not (math.isfinite(speedup) and speedup > 1):
            raise ValueError(f"target_speedup is {speedup}; it must be above 1, for instance 2.0")
        return Target("speedup", float(speedup))
    assert quality is not None
    if not 0 < quality < MOST_PSNR:
        raise ValueError(f"target_psnr is {quality}; it must be in dB, above 0 and below 100")
    return Target("psnr", float(quality))


def _check_refine(sweeps: int, target: Target, kind: Kind) -> None:
    check_int("refine", sweeps, at_least=0)
    if sweeps and (target.of != "speedup" or kind != "profile"):
        raise ValueError(
            f'refine is {sweeps}, with target {target} and kind="{kind}"; it makes a schedule of '
            'kind="profile" better at its speedup: give target_speedup'
        )


def drawn_apart(given: Sequence[Case], seed: int) -> tuple[list[Case], list[Case]]:
    """What to fit to, and a random quarter: the last one could be all of a kind."""
    count = max(1, round(HELD_OUT * len(given)))
    kept = set(random.Random(seed).sample(range(len(given)), min(count, len(given))))
    return (
        [case for i, case in enumerate(given) if i not in kept],
        [case for i, case in enumerate(given) if i in kept],
    )


def _split(
    cases: Sequence[Case], held_out: Sequence[Case] | None, seed: int
) -> tuple[list[Case], list[Case]]:
    """Cases to fit to, and to judge by."""
    if held_out is None:
        train, kept = drawn_apart(cases, seed)
    else:
        train, kept = list(cases), list(held_out)
    if len(train) < FEWEST_CASES or not kept:
        raise ValueError(
            f"there are {len(train)} cases to calibrate with and {len(kept)} held-out ones; it "
            f"takes at least {FEWEST_CASES} and 1, and two dozen to be exact"
        )
    return train, kept


def _profile_of(given: object) -> Profile | None:
    if isinstance(given, str | Path) and is_calibration(given):
        given = Calibration.load(given)
    if not isinstance(given, Calibration):
        return parse_profile(given)
    if given.profile is None:
        raise ValueError(f"profile is {given!r}, which has none; leave it out to make one")
    return given.profile
