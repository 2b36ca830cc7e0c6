"""`calibrate`: settings that reach a speedup or a PSNR, and their result on held-out cases.

It records full generations once, and simulates schedules on the recordings. Only settings that are
expected to reach the target are generated, and each such round corrects the expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..config.calibration_file import Calibration, Kind, is_calibration
from ..config.validation import parse_profile
from ..measure.shared_work import SharedWork
from ..schedule.calibrated_for import CalibratedFor
from ..schedule.profile import Profile
from .checkpoint import Checkpoint, request_for
from .choose_codebook import choose_codebook
from .follow import follow, tell_end
from .held_out import RunComparison, held_out_result, run_held_out
from .make_profile import check_settings, fit_profile
from .measured_cases import MeasuredCases
from .objectives import Objective, make_objective
from .outcomes import StoredOutcome
from .record import Case, Progress, no_progress, record
from .refine_schedule import refine_planned
from .request import (
    Request,
    check_options,
    check_peak,
    check_range,
    parse_target,
    split_cases,
)
from .simulate import ProfileFamily, SettingFamily
from .target_search import SearchPoint, search_rounds
from .timed_runs import Runner


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
    checkpoint: str | Path | None = None,
    work: SharedWork | None = None,
    **settings: Any,
) -> Calibration:
    """Find settings of `patch` that reach a target, at the number of steps of `generate`.

    With N cases to fit to and H held-out ones, it generates N videos in full; for a new profile,
    N * `trials` with about a third of the steps; for a codebook, N more; in each round, 24 for a
    speedup (half of them in full, and 12 more before the first round) or N for a PSNR; and 2 * H at
    the end. It stores a million elements (4 MB) of each outcome. During a generation it also stores
    65536 elements (0.25 MB) of each residual, one for each step, block list and branch.

    Args:
        pipe: an unpatched pipeline with one transformer, or a bare model.
        cases: arguments of `generate`, such as pairs of prompt and seed; two dozen or more, all
            different.
        generate: from a case to its outcome, a tensor or array (the video). It must return the same
            outcome whenever it is called.
        target_speedup: speedup of the transformer, over all cases together.
        target_psnr: mean over the cases, in dB, against the unpatched outcome. A standard error of
            1 dB needs about 25 cases if videos differ by 5 dB.
        kind: "profile", a plan with forecasts, which is better by several dB; or "codebook", the
            paper's, which stores one residual instead of three.
        held_out: cases for the final measurement. None: a quarter of `cases`, drawn at random.
        profile: a profile of this model, scheduler and number of steps, a calibration with one, or
            a file of either. None: the kind "profile" makes a new one. The kind "codebook" uses
            only its sensitivity.
        trials: generations with a random schedule for each case, for a new profile.
        rounds: generations that correct the expected value, at most.
        refine: sweeps of direct search over the steps of the profile's schedule, which then is the
            same for every video. A sweep measures twice as many schedules as there are computed
            steps, each with up to 12 cases. It gained 0.3 to 2.3 dB on the demo. Only with
            target_speedup.
        peak: highest possible value of an outcome minus the lowest. None: 1, and the values must be
            in 0 to 1.
        seed: of the held-out cases and random schedules.
        progress: called after each generation with a description, the number of generations so
            far, and their total.
        checkpoint: folder in which each measurement is stored when it is made, about 4 MB a case.
            With the same arguments, a calibration that was killed or that ran out of disk goes on
            from there. The `repr` of a case identifies it. The first case is generated again,
            to show that `generate` is the same. Remove the folder after the result is saved.
        work: ranks that share out the generations, each with the same arguments and a whole model
            of its own. Rank 0 searches; all return its result. It needs `checkpoint`, a folder that
            all ranks see. None: this rank alone.
        settings: more settings for `patch`. The defaults for a profile are forecast=1 and
            correct=True.

    Raises:
        TypeError: a target is not a number.
        ValueError: there is not exactly one target, or no setting reaches it; there are too few
            cases; the settings choose steps; the profile is of another model, scheduler or number
            of steps; an outcome is not finite, or outside of 0 to 1 without `peak`; or the
            checkpoint is of another request or model.
        OSError: the checkpoint cannot be written.
        MissingRankError: another rank has died or stopped.
    """
    target = parse_target(target_speedup, target_psnr)
    check_options(target, kind, trials, rounds, refine)
    check_settings(settings)
    check_peak(peak)
    known_profile = _known_profile(profile)
    fitted_cases, held_out_cases = split_cases(cases, held_out, seed)
    if kind == "profile":
        settings = {"forecast": 1, "correct": True} | settings
    request = Request(
        target=target,
        kind=kind,
        cases=fitted_cases,
        held_out=held_out_cases,
        profile=known_profile,
        trials=trials,
        rounds=rounds,
        refine=refine,
        peak=peak,
        seed=seed,
        settings=settings,
    )
    stored = Checkpoint(checkpoint, _description(pipe, request), work)
    return _calibrated(pipe, generate, request, progress or no_progress, stored)


def _description(pipe: Any, request: Request[Case]) -> dict[str, Any]:
    """Return all that the measurements depend on, for the checkpoint."""
    values = {each.name: getattr(request, each.name) for each in fields(request)}
    return request_for(
        pipe,
        values.pop("cases"),
        **values
        | {
            "target": asdict(request.target),
            "held_out": list(map(repr, request.held_out)),
            "profile": None if request.profile is None else request.profile.to_dict(),
            "settings": repr(sorted(request.settings.items())),
        },
    )


def _calibrated(
    pipe: Any,
    generate: Callable[[Case], Any],
    request: Request[Case],
    progress: Progress,
    checkpoint: Checkpoint,
) -> Calibration:
    measured = _recorded_cases(pipe, generate, request, progress, checkpoint)
    if checkpoint.work.rank > 0:
        return follow(measured)
    calibration = _searched(measured, request)
    tell_end(measured, calibration)
    return calibration


def _searched(measured: MeasuredCases[Case], request: Request[Case]) -> Calibration:
    objective = make_objective(request.target, measured)
    profile, family = _family(objective, measured, request)
    points = search_rounds(objective, family, request.rounds)
    best = family.settings(points[-1].knob)
    refine_notes: dict[str, Any] = {}
    if request.refine:
        best, refine_notes = refine_planned(measured, best, request.refine)
    comparisons, costs = run_held_out(measured, best)
    best = {name: value for name, value in best.items() if name != "profile"}
    return Calibration(
        kind=request.kind,
        settings={**request.settings, **best},
        calibrated_for=measured.recording.calibrated_for,
        target=request.target,
        held_out=held_out_result(comparisons, costs, measured.num_steps),
        profile=profile,
        notes=_notes(len(request.cases), points, comparisons) | refine_notes,
    )


def _recorded_cases(
    pipe: Any,
    generate: Callable[[Case], Any],
    request: Request[Case],
    progress: Progress,
    checkpoint: Checkpoint,
) -> MeasuredCases[Case]:
    def accept(calibrated_for: CalibratedFor, outcome: StoredOutcome) -> None:
        check_range(outcome, request.peak)
        if request.profile is not None:
            request.profile.calibrated_for.check(
                calibrated_for.model,
                calibrated_for.scheduler,
                calibrated_for.num_steps,
                "the profile",
                "without profile=",
            )

    settings, distances = request.settings, request.kind == "codebook"
    recording = record(
        pipe,
        request.cases,
        generate,
        settings,
        progress,
        checkpoint,
        accept,
        distances=distances,
    )
    return MeasuredCases(
        cases=request.cases,
        recording=recording,
        runner=Runner(pipe, generate, recording.num_steps, settings),
        peak=1.0 if request.peak is None else request.peak,
        progress=progress,
        checkpoint=checkpoint,
        held_out=request.held_out,
    )


def _family(
    objective: Objective[Case], measured: MeasuredCases[Case], request: Request[Case]
) -> tuple[Profile | None, SettingFamily]:
    """Return the settings to search, with their profile for the kind "profile"."""
    if request.kind == "codebook":
        objective.prepare({})
        return None, choose_codebook(objective, measured, request.profile)
    profile = request.profile or fit_profile(measured, request.trials, request.seed)
    objective.prepare({"profile": profile})
    return profile, ProfileFamily(profile, measured.recording, measured.runner.settings)


def _known_profile(given: object) -> Profile | None:
    if isinstance(given, str | Path) and is_calibration(given):
        given = Calibration.load(given)
    if not isinstance(given, Calibration):
        return parse_profile(given)
    if given.profile is None:
        raise ValueError(f"profile is {given!r}, which has none; leave it out to make one")
    return given.profile


def _notes(
    cases: int, points: Sequence[SearchPoint], comparisons: Sequence[RunComparison]
) -> dict[str, Any]:
    return {
        "cases": cases,
        "tried": [[point.knob, float(f"{point.value:.4g}")] for point in reversed(points)],
        "held_out_psnr": [round(case.psnr, 2) for case in comparisons],
        "held_out_speedup": [round(case.speedup, 3) for case in comparisons],
        "held_out_computed": [case.computed for case in comparisons],
    }
