"""The paper's table on the demo pipeline, by `adacache bench quality`.

    python -m bench.quality.paper_table --steps 50 --out bench/quality/results/paper_50
    python -m bench.quality.paper_table --steps 100 --out bench/quality/results/paper_100

Nothing was fitted to the 24 prompts and 2 seeds. If a method allows it, its settings compute about
a half and about a third of the steps. PAB, T-GATE and delta-DiT have their published settings for
Latte, and one that saves more. `matched.md` lists the methods near each budget of computed steps,
with their gain over our best setting, video by video.

Two processes can generate the seeds in parallel: run `--seeds 1 --first-seed 0` and `--seeds 1
--first-seed 1` with one --out, and then the whole command for the table of both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.presets import SCHEDULES
from adacache_kernels.demo.run import generate
from adacache_kernels.evaluate.results import Row, read_rows
from adacache_kernels.evaluate.table_lines import table_lines
from adacache_kernels.evaluate.tables import markdown
from bench.demo_model.data import MOTIONS

DIGITS = ("zero", "one", "two", "four", "five", "six", "seven", "nine")
PROMPTS = [f"a white {digit} {motion}" for digit in DIGITS for motion in MOTIONS]
NEAR = 0.12
CALIBRATION = ("a white three moving slowly", 1000)
BUDGETS = {50: (25, 17, 12, 9), 100: (50, 34)}
SOLVERS = ("", ":DPMSolverMultistepScheduler", ":UniPCMultistepScheduler")


def methods(steps: int, ratios: Path) -> list[str]:
    """Return names for `--methods`, see `adacache_kernels/evaluate/method_spec.py`."""
    half, third = BUDGETS[steps][:2]
    skips = {50: ((0.09, 4), (0.25, 6)), 100: ((0.04, 4), (0.13, 6))}[steps]
    teacache = {50: (0.13, 0.23), 100: (0.115, 0.18)}[steps]
    first_block = {50: (0.1, 0.19), 100: (0.06, 0.11)}[steps]
    layers = {
        50: ("{0.055: 4, 0.074: 2, 1.0: 1}", "{0.1: 4, 0.15: 2, 1.0: 1}"),
        100: ("{0.03: 4, 0.045: 2, 1.0: 1}", "{0.06: 4, 0.09: 2, 1.0: 1}"),
    }[steps]
    curves = (
        *(f"steps:{{}}{solver}" for solver in SOLVERS),
        "even:{}",
        "even:{}:forecast=1",
        "even:{}:forecast=1:correct=True",
        "profile:computed_steps={}",
    )
    return [
        *(curve.format(count) for count in BUDGETS[steps] for curve in curves),
        *(ours(steps, count) for count in BUDGETS[steps] if is_refined(steps, count)),
        *(f"even:{count}:forecast=2" for count in (half, third) if steps == 50),
        "slow",
        "fast",
        "forecast",
        "pab:latte-slow",
        "pab:latte-fast",
        *(f"taylorseer:interval={k}:order={order}" for k in (2, 3) for order in (1, 2)),
        *(f"taylorseer:computed_steps={count}:order=1" for count in (half, third) if steps == 50),
        "t-gate:latte",
        "delta-dit:latte",
        f"delta-dit:boundary={half}:front=(0, 3):back=(1, 4):interval=3",
        *(f"per-layer:codebook={codebook}" for codebook in layers),
        *(f"first-block:threshold={threshold}" for threshold in first_block),
        *(f"teacache:latte-slow:threshold={value}" for value in teacache),
        *(
            f"mag-cache:ratios={ratios}:threshold={threshold}:max_skips={most}:retention=0.1"
            for threshold, most in skips
        ),
    ]


def is_refined(steps: int, count: int) -> bool:
    """Return whether `bench/demo_model/refine_schedules.py` has made this schedule."""
    return str(count) in json.loads(SCHEDULES.read_text()).get(str(steps), {})


def ours(steps: int, count: int) -> str:
    """Return our best method: the refined schedule if there is one, else the profile."""
    return f"refined:{count}" if is_refined(steps, count) else f"profile:computed_steps={count}"


def measured_ratios(steps: int) -> tuple[float, ...]:
    """Measure the ratios for MagCache on one video that is in no comparison."""
    pipe = load_pipeline(DEFAULT_WEIGHTS)
    prompt, seed = CALIBRATION
    return ak.measure_ratios(pipe, lambda: generate(pipe, prompt, steps=steps, seed=seed))


def matched(rows: Sequence[Row], steps: int) -> str:
    """Return a table for each budget: the methods within `NEAR` of it, the best first.

    Methods without all videos are left out: their means are over other videos.
    """
    text = []
    for budget in BUDGETS[steps]:
        lines = table_lines(rows, against=ours(steps, budget))
        videos = max(line.videos for line in lines)
        near = [
            line
            for line in lines
            if line.computed
            and abs(line.computed - budget) < NEAR * budget
            and line.videos == videos
        ]
        near.sort(key=lambda line: -line.psnr)
        text += [f"{budget} of {steps} steps computed, within {NEAR:.0%}:", "", *markdown(near), ""]
    return "\n".join(text)


def main() -> int:
    """Run the command line and return its exit code."""
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
    words = [str(word) for pair in options.items() for word in pair]
    names = methods(arguments.steps, ratios)
    code = cli.main(["bench", "quality", "--prompts", *PROMPTS, "--methods", *names, *words])
    if code == 0:
        rows = read_rows(arguments.out / "rows.jsonl")
        (arguments.out / "matched.md").write_text(matched(rows, arguments.steps))
    return code


if __name__ == "__main__":
    sys.exit(main())
