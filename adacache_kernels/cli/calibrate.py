"""`adacache calibrate`: settings for a target, saved as the JSON file that `patch` loads."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from ..calibration.calibrate import calibrate, drawn_apart, target_of
from ..config.calibration_file import Calibration
from ..measure.psnr_ssim import Video
from .common import call_arguments, check_extras, progress_bar, read_prompts

Case = tuple[str, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `adacache calibrate`."""
    parser.add_argument(
        "--pipeline",
        default="demo",
        help='"demo", a folder or hub name for diffusers, or FILE.py:FUNCTION (default demo)',
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        help="prompts, or one file with a prompt a line; a quarter, drawn at random, is held out",
    )
    parser.add_argument(
        "--held-out", nargs="+", help="prompts to judge by instead, or one file of them"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--target-speedup", type=float, help="of the transformer, for example 2")
    target.add_argument("--target-psnr", type=float, help="in dB against the unpatched video")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--steps", type=int, default=50, help="scheduler steps (default 50)")
    parser.add_argument("--seeds", type=int, default=1, help="of each prompt (default 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--kind",
        choices=("profile", "codebook"),
        default="profile",
        help="profile: with forecasts; codebook: the paper's, a third of the memory",
    )
    parser.add_argument(
        "--profile", type=Path, help="a profile, or a calibration with one, made before"
    )
    parser.add_argument(
        "--trials", type=int, default=6, help="random schedules a video (default 6)"
    )
    parser.add_argument("--rounds", type=int, default=4, help="of correction, at most (default 4)")
    parser.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="SWEEPS",
        help="direct search over the schedule, for a speedup; 2 sweeps take hundreds of videos",
    )
    parser.add_argument("--device", help="such as cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--call", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of the pipeline"
    )


def run(arguments: argparse.Namespace) -> None:
    """Calibrate, save, and say how far the held-out prompts were from the target.

    Raises:
        ValueError, OSError, ImportError: with a message for the user.
    """
    check_extras()
    prompts, held = _prompts(arguments)
    if arguments.steps < 1 or arguments.seeds < 1:
        raise ValueError(
            f"--steps is {arguments.steps} and --seeds {arguments.seeds}; both are at least 1"
        )
    if not arguments.out.parent.is_dir():
        raise ValueError(f"--out is {arguments.out}; there is no folder {arguments.out.parent}")
    if arguments.out.is_dir():
        raise ValueError(f"--out is {arguments.out}, a folder; give the JSON file to write")
    target_of(arguments.target_speedup, arguments.target_psnr)
    call = call_arguments(arguments.call)

    import torch

    from ..evaluate import pipelines

    torch.set_num_threads(arguments.threads)
    subject = pipelines.load(arguments.pipeline, device=arguments.device, arguments=call)
    subject.check([*prompts, *held])

    made: list[Case] = []

    def generate(case: Case) -> Video:
        made.append(case)
        prompt, seed = case
        return subject.generate(prompt, arguments.steps, seed)

    start = time.perf_counter()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with progress_bar() as show:
        found = calibrate(
            subject.pipe,
            _cases(prompts, seeds),
            generate,
            target_speedup=arguments.target_speedup,
            target_psnr=arguments.target_psnr,
            kind=arguments.kind,
            held_out=_cases(held, seeds),
            profile=arguments.profile,
            trials=arguments.trials,
            rounds=arguments.rounds,
            refine=arguments.refine,
            progress=show,
        )
    found.save(arguments.out)
    print(_told(found, arguments.out))
    print(f"It took {len(made)} generations, {time.perf_counter() - start:.0f} s in all")


def _prompts(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Prompts to fit to, and to judge by: none is both, whatever the seeds."""
    prompts = read_prompts(arguments.prompts)
    if arguments.held_out is not None:
        held = read_prompts(arguments.held_out, "--held-out")
    elif len(prompts) > 1:
        prompts, held = drawn_apart(prompts, seed=0)
    else:
        raise ValueError(
            f"--prompts has one prompt, {prompts[0]!r}, and a quarter is held out; give more, or "
            "--held-out"
        )
    both = sorted(set(prompts) & set(held))
    if both:
        raise ValueError(f"{both[0]!r} is a prompt to fit to and a held-out one; give it once")
    return prompts, held


def _cases(prompts: Sequence[str], seeds: range) -> list[Case]:
    return [(prompt, seed) for prompt in prompts for seed in seeds]


def _told(found: Calibration, path: Path) -> str:
    of = "x" if found.target.of == "speedup" else " dB"
    tried = ", ".join(f"{value:g}{of} at {knob:g}" for knob, value in found.notes["tried"])
    what = "computed steps" if found.kind == "profile" else "1 / threshold"
    return (
        f"Fitted to {found.notes['cases']} videos; tried ({what}): {tried}\n{found}\n"
        f'Written to {path}: ak.patch(pipe, "{path}")'
    )
