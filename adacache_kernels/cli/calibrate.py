"""`adacache calibrate`: find settings for a target, and save them as a JSON file for `patch`."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ..calibration.calibrate import calibrate
from ..calibration.request import draw_held_out, parse_target
from ..config.calibration_file import Calibration
from ..evaluate.pipelines import Subject
from ..measure.psnr_ssim import Video
from ..measure.shared_work import SharedWork
from ..schedule.files import check_writable
from .checks import check_numbers
from .common import (
    add_pipeline_arguments,
    check_extras,
    load_subject,
    progress_bar,
    read_prompts,
    seeds_of,
    shared_work,
)

Case = tuple[str, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `adacache calibrate`."""
    add_pipeline_arguments(parser)
    parser.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        help="prompts, or one file with a prompt a line; a quarter, drawn at random, is held out",
    )
    parser.add_argument(
        "--held-out", nargs="+", help="held-out prompts instead of that quarter, or one file"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--target-speedup", type=float, help="speedup of the transformer, for example 2"
    )
    target.add_argument("--target-psnr", type=float, help="dB against the unpatched video")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--kind",
        choices=("profile", "codebook"),
        default="profile",
        help="profile: with forecasts; codebook: the paper's, with a third of the memory",
    )
    parser.add_argument(
        "--profile", type=Path, help="an existing profile, or a calibration that has one"
    )
    parser.add_argument(
        "--trials", type=int, default=6, help="random schedules for each video (default 6)"
    )
    parser.add_argument(
        "--rounds", type=int, default=4, help="rounds of correction, at most (default 4)"
    )
    parser.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="SWEEPS",
        help="direct search over the schedule, for a speedup; 2 sweeps take hundreds of videos",
    )


def run(arguments: argparse.Namespace) -> None:
    """Calibrate, save the result, and print how far the held-out prompts are from the target.

    The measurements are stored beside the result until it is saved. If the command is repeated
    after it was killed, it goes on from there. Ranks of torchrun or accelerate share out the
    generations. Only rank 0 prints.

    Raises:
        ValueError, OSError, ImportError, MissingRankError: with a message for the user.
    """
    check_extras()
    prompts, held_out = _prompts(arguments)
    check_numbers(arguments)
    check_writable(arguments.out)
    checkpoint = arguments.out.with_name(f"{arguments.out.name}.partial")
    parse_target(arguments.target_speedup, arguments.target_psnr)
    with shared_work(arguments, checkpoint) as work:
        subject = load_subject(arguments, [*prompts, *held_out])
        _calibrate(arguments, subject, (prompts, held_out), checkpoint, work)
    if work.rank == 0:
        shutil.rmtree(checkpoint)


def _calibrate(
    arguments: argparse.Namespace,
    subject: Subject,
    prompts: tuple[Sequence[str], Sequence[str]],
    checkpoint: Path,
    work: SharedWork,
) -> None:
    """Calibrate, save the result, and print it.

    Args:
        arguments: of the command.
        subject: the pipeline.
        prompts: those to fit to, and the held-out ones.
        checkpoint: folder of the measurements.
        work: the ranks.
    """
    generations = 0

    def generate(case: Case) -> Video:
        nonlocal generations
        generations += 1
        prompt, seed = case
        return subject.generate(prompt, arguments.steps, seed)

    start = time.perf_counter()
    seeds = seeds_of(arguments)
    with progress_bar(work) as show:
        calibration = calibrate(
            subject.pipe,
            _cases(prompts[0], seeds),
            generate,
            target_speedup=arguments.target_speedup,
            target_psnr=arguments.target_psnr,
            kind=arguments.kind,
            held_out=_cases(prompts[1], seeds),
            profile=arguments.profile,
            trials=arguments.trials,
            rounds=arguments.rounds,
            refine=arguments.refine,
            progress=show,
            checkpoint=checkpoint,
            work=work,
        )
    made = sum(work.gather("generations", generations))
    if work.rank > 0:
        return
    calibration.save(arguments.out)
    print(_report(calibration, arguments.out))
    print(f"It took {made} generations, {time.perf_counter() - start:.0f} s in all")


def _prompts(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the prompts to fit to and the held-out ones, without a common prompt."""
    prompts = read_prompts(arguments.prompts)
    if arguments.held_out is not None:
        held_out = read_prompts(arguments.held_out, "--held-out")
    elif len(prompts) > 1:
        prompts, held_out = draw_held_out(prompts, seed=0)
    else:
        raise ValueError(
            f"--prompts has one prompt, {prompts[0]!r}, and a quarter is held out; give more, or "
            "--held-out"
        )
    both = sorted(set(prompts) & set(held_out))
    if both:
        raise ValueError(f"{both[0]!r} is a prompt to fit to and a held-out one; give it once")
    return prompts, held_out


def _cases(prompts: Sequence[str], seeds: range) -> list[Case]:
    return [(prompt, seed) for prompt in prompts for seed in seeds]


def _report(calibration: Calibration, path: Path) -> str:
    unit = "x" if calibration.target.of == "speedup" else " dB"
    measured = ", ".join(
        f"{value:g}{unit} at {knob:g}" for knob, value in calibration.notes["tried"]
    )
    knob_name = "computed steps" if calibration.kind == "profile" else "1 / threshold"
    return (
        f"Fitted to {calibration.notes['cases']} videos; measured ({knob_name}): {measured}\n"
        f"{calibration}\n"
        f'Written to {path}: ak.patch(pipe, "{path}")'
    )
