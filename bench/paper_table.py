"""The paper's table on the demo pipeline: every method, by `adacache bench quality`.

    python bench/paper_table.py --steps 50 --out bench/results/paper_50
    python bench/paper_table.py --steps 100 --out bench/results/paper_100

24 prompts that nothing was fitted to, 2 seeds. Methods are set so that they compute about a half
and about a third of the steps where they can; PAB, T-GATE and delta-DiT have their published
settings for Latte, and one with which they save more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import adacache_kernels as ak
from adacache_kernels import cli
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.presets import PROFILES
from adacache_kernels.demo.run import generate

MOTIONS = ("standing still", "moving slowly", "moving fast")
DIGITS = ("zero", "one", "two", "four", "five", "six", "seven", "nine")
PROMPTS = [f"a white {digit} {motion}" for digit in DIGITS for motion in MOTIONS]
CALIBRATION = ("a white three moving slowly", 1000)
SOLVERS = ("", ":DPMSolverMultistepScheduler", ":UniPCMultistepScheduler")


def methods(steps: int, ratios: Path) -> list[str]:
    """Names for `--methods`, see `adacache_kernels/evaluate/methods.py`."""
    half, third = steps // 2, round(0.34 * steps)
    skips = {50: ((0.09, 4), (0.25, 6)), 100: ((0.04, 4), (0.13, 6))}[steps]
    embedding = {50: (0.13, 0.23), 100: (0.115, 0.18)}[steps]
    first_block = {50: (0.1, 0.19), 100: (0.06, 0.11)}[steps]
    layers = {
        50: ("{0.055: 4, 0.074: 2, 1.0: 1}", "{0.1: 4, 0.15: 2, 1.0: 1}"),
        100: ("{0.03: 4, 0.045: 2, 1.0: 1}", "{0.06: 4, 0.09: 2, 1.0: 1}"),
    }[steps]
    profile = PROFILES / f"{steps}.json"
    return [
        *(f"steps:{count}{solver}" for count in (half, third) for solver in SOLVERS),
        "slow",
        "fast",
        "forecast",
        *(f"even:{count}" for count in (half, third)),
        *(f"even:{count}:forecast=1" for count in (half, third)),
        f"even:{half}:forecast=2",
        *(f"{profile}:computed_steps={count}" for count in (half, third)),
        "pab:latte-slow",
        "pab:latte-fast",
        *(f"taylorseer:interval={k}:order={order}" for k in (2, 3) for order in (1, 2)),
        *(f"taylorseer:computed_steps={count}:order=1" for count in (half, third)),
        "t-gate:latte",
        "delta-dit:latte",
        f"delta-dit:boundary={half}:front=(0, 3):back=(1, 4):interval=3",
        *(f"per-layer:codebook={codebook}" for codebook in layers),
        *(f"first-block:threshold={threshold}" for threshold in first_block),
        *(f"timestep-embedding:latte-slow:threshold={value}" for value in embedding),
        *(
            f"mag-cache:ratios={ratios}:threshold={threshold}:max_skips={most}:retention=0.1"
            for threshold, most in skips
        ),
    ]


def measured_ratios(steps: int) -> tuple[float, ...]:
    """Of one video that is in no comparison."""
    pipe = load_pipeline(DEFAULT_WEIGHTS)
    prompt, seed = CALIBRATION
    return ak.measure_ratios(pipe, lambda: generate(pipe, prompt, steps=steps, seed=seed))


def main() -> int:
    parser = argparse.ArgumentParser(description="Every method of the paper on the demo pipeline.")
    parser.add_argument("--steps", type=int, choices=(50, 100), default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {
        "--steps": arguments.steps,
        "--seeds": arguments.seeds,
        "--first-seed": arguments.first_seed,
        "--out": arguments.out,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    ratios = arguments.out / "mag_ratios.json"
    if not ratios.exists():
        ratios.write_text(json.dumps(measured_ratios(arguments.steps)))
    given = [str(word) for pair in options.items() for word in pair]
    named = methods(arguments.steps, ratios)
    return cli.main(["bench", "quality", "--prompts", *PROMPTS, "--methods", *named, *given])


if __name__ == "__main__":
    sys.exit(main())
