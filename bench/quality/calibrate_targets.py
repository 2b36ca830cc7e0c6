"""Calibrate the demo pipeline for targets, and report how far held-out prompts are from them.

    python -m bench.quality.calibrate_targets --work DIR profile
    python -m bench.quality.calibrate_targets --work DIR 2x 3x 40dB 2x-codebook
    python -m bench.quality.calibrate_targets --work DIR --seeds 4 12 45dB
    python -m bench.quality.calibrate_targets --work DIR --report bench/quality/results/calibrate.md

There are thirty prompts of ten digits and three kinds of motion. Nine are held out, three of each
motion, because PSNR differs between motions by up to 10 dB. Held-out seeds differ, too. All targets
use one profile, which is made first; `adacache calibrate` without --profile does both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import adacache_kernels as ak
from adacache_kernels.cli.common import progress_bar
from adacache_kernels.demo.pipeline import load_pipeline
from adacache_kernels.demo.run import generate
from adacache_kernels.measure.psnr_ssim import Video
from bench.demo_model.data import DIGIT_WORDS, MOTIONS

Case = tuple[str, int]
STEPS = 50
FIRST_SEED, FIRST_HELD_OUT = 1000, 2000
PROFILE_SEEDS, TRIALS = 2, 6
# Seeds of each of the 21 fitted prompts, and of each of the 9 held-out ones. PSNR differs by 6 dB
# between videos, a speedup by 5 %.
SEEDS = {"speedup": (1, 3), "psnr": (6, 18)}


def prompts(*, held_out: bool) -> list[str]:
    """Return the 9 held-out prompts or the other 21; a third of them is of each motion."""
    return [
        f"a white {digit} {motion}"
        for i, digit in enumerate(DIGIT_WORDS)
        for j, motion in enumerate(MOTIONS)
        if (i < 9 and (i + j) % 3 == 0) == held_out
    ]


def cases(seeds: int, *, held_out: bool) -> list[Case]:
    """Return pairs of prompt and seed."""
    first = FIRST_HELD_OUT if held_out else FIRST_SEED
    texts = prompts(held_out=held_out)
    return [(text, first + seed) for seed in range(seeds) for text in texts]


def calibrated(target: str, profile: Path, seeds: Sequence[int] | None) -> dict[str, object]:
    """Calibrate for a target such as 2x, 40dB or 2x-codebook; return the result and its cost."""
    start = time.perf_counter()
    pipe = load_pipeline()
    wanted, _, kind = target.partition("-")
    of = "psnr" if wanted.endswith("dB") else "speedup"
    fitted, held_out = seeds or SEEDS[of]
    generations = 0

    def generated(case: Case) -> Video:
        nonlocal generations
        generations += 1
        return video(pipe, case)

    with progress_bar() as show:
        calibration = ak.calibrate(
            pipe,
            cases(fitted, held_out=False),
            generated,
            **{f"target_{of}": float(wanted.removesuffix("dB").removesuffix("x"))},
            kind=kind or "profile",
            held_out=cases(held_out, held_out=True),
            profile=None if kind else str(profile),
            progress=show,
        )
    print(calibration)
    seconds = time.perf_counter() - start
    costs = {"seconds": seconds, "generations": generations}
    return calibration.to_dict() | {"profile": None} | costs


def video(pipe: object, case: Case) -> Video:
    """Generate one case."""
    prompt, seed = case
    return generate(pipe, prompt, steps=STEPS, seed=seed)


def report(folder: Path) -> str:
    """Return Markdown with a row for each target."""
    lines = [
        "# Calibrated for a target: held-out prompts",
        "",
        "The demo pipeline (LattePipeline, 50 DDIM steps, guidance 4), one thread of a shared CPU. "
        "Speedup: of the transformer, over all videos together; each is generated unpatched and "
        "patched, one right after the other (`HeldOutResult`). PSNR: mean over the videos, with "
        "its standard error. Nothing was fitted to these prompts or seeds. Generations and "
        "seconds: of `calibrate` with an existing profile, held-out videos included.",
        "",
        "| target | kind | reached | off by | speedup, least | PSNR, worst | steps computed | "
        "fitted to / held out | rounds | generations, seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*x*.json")) + sorted(folder.glob("*dB.json")):
        lines.append(_row(json.loads(path.read_text())))
    seconds = folder / "profile.seconds"
    if seconds.exists():
        videos = len(cases(PROFILE_SEEDS, held_out=False))
        lines += [
            "",
            f"The profile took {float(seconds.read_text()):.0f} s: {videos} videos in full and "
            f"{TRIALS} random schedules of each.",
        ]
    return "\n".join([*lines, "", "```", *_commands(), "```", ""])


def _row(calibration: dict) -> str:
    target, held, notes = calibration["target"], calibration["held_out"], calibration["notes"]
    if target["of"] == "speedup":
        wanted, reached = f"{target['value']:g}x", f"{held['speedup']:.2f}x"
        off = f"{100 * (held['speedup'] / target['value'] - 1):+.1f} %"
    else:
        wanted = f"{target['value']:g} dB"
        reached = f"{held['psnr']:.2f} +- {held['psnr_error']:.2f} dB"
        off = f"{held['psnr'] - target['value']:+.2f} dB"
    cells = [
        wanted,
        calibration["kind"],
        reached,
        off,
        f"{held['speedup']:.2f}x, {held['slowest']:.2f}x",
        f"{held['psnr']:.1f} +- {held['psnr_error']:.1f}, {held['worst_psnr']:.1f}",
        f"{held['computed_steps']:.1f}",
        f"{notes['cases']} / {held['cases']}",
        str(len(notes["tried"])),
        f"{calibration['generations']}, {calibration['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _commands() -> list[str]:
    return [line.strip() for line in (__doc__ or "").splitlines() if line.startswith("    python")]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Calibrate the demo pipeline for targets.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the profile and the results"
    )
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--seeds", type=int, nargs=2, help="seeds of a fitted and of a held-out prompt"
    )
    parser.add_argument("targets", nargs="*", help="profile, or such as 2x, 40dB, 2x-codebook")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    profile = arguments.work / "profile.json"
    for target in arguments.targets:
        if target == "profile":
            make_profile(profile)
        else:
            result = calibrated(target, profile, arguments.seeds)
            (arguments.work / f"{target}.json").write_text(json.dumps(result))
    if arguments.report:
        arguments.report.write_text(report(arguments.work))


def make_profile(path: Path) -> None:
    """Make the profile that every target uses."""
    start = time.perf_counter()
    pipe = load_pipeline()
    with progress_bar() as show:
        profile = ak.make_profile(
            pipe,
            cases(PROFILE_SEEDS, held_out=False),
            lambda case: video(pipe, case),
            trials=TRIALS,
            progress=show,
        )
    profile.save(path)
    path.with_suffix(".seconds").write_text(f"{time.perf_counter() - start}")


if __name__ == "__main__":
    main()
