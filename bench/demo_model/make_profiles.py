"""Make the demo model's profiles.

    cd adacache_kernels/demo/profiles
    python -m bench.demo_model.make_profiles --steps 50 --trials 14 --out 50.json
    python -m bench.demo_model.make_profiles --steps 100 --trials 10 --out 100.json

The cases are two digits in every kind of motion with several seeds. `bench/quality/paper_table.py`
evaluates the other eight digits with other seeds. Both commands in parallel, on two cores, took 11
and 15 minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from adacache_kernels.calibration.make_profile import make_profile
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.run import generate
from adacache_kernels.measure.psnr_ssim import Video
from bench.demo_model.data import MOTIONS

CALIBRATION_PROMPTS = tuple(
    f"a white {digit} {motion}" for digit in ("three", "eight") for motion in MOTIONS
)
FIRST_SEED = 1000


def calibration_cases(seeds: int) -> list[tuple[str, int]]:
    """Return pairs of prompt and seed."""
    return [(prompt, FIRST_SEED + seed) for seed in range(seeds) for prompt in CALIBRATION_PROMPTS]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make a profile of the demo model.")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each prompt (default 8)")
    parser.add_argument(
        "--trials", type=int, default=14, help="random schedules for each case (default 14)"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    pipe = load_pipeline(arguments.weights)

    def run(case: tuple[str, int]) -> Video:
        prompt, seed = case
        return generate(pipe, prompt, steps=arguments.steps, seed=seed)

    with tqdm(unit="video") as bar:

        def show(doing: str, done: int, total: int) -> None:
            bar.set_description(doing)
            bar.total, bar.n = total, done
            bar.refresh()

        profile = make_profile(
            pipe,
            calibration_cases(arguments.seeds),
            run,
            trials=arguments.trials,
            progress=show,
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    profile.save(arguments.out)
    print(f"{arguments.out}: {profile.notes}")


if __name__ == "__main__":
    main()
