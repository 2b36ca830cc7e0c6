"""Refine the schedules of the demo model's profiles by direct search.

    # 40 minutes on a core
    python -m bench.demo_model.refine_schedules --steps 50 --counts 25 17 12 9
    # 10 minutes
    python -m bench.demo_model.refine_schedules --steps 100 --counts 34 --sweeps 1 --seeds 1

The results go to `schedules.json` beside the profiles. The cases are those of `make_profiles.py`,
which no comparison uses.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from tqdm import tqdm

import adacache_kernels as ak
from adacache_kernels.calibration.refine_schedule import RefinedSchedule, refine_schedule
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.presets import PROFILES, SCHEDULES
from adacache_kernels.demo.run import generate
from adacache_kernels.measure.psnr_ssim import Video, psnr
from adacache_kernels.schedule.profile import Profile
from bench.demo_model.make_profiles import calibration_cases


def refined(steps: int, count: int, sweeps: int, seeds: int) -> RefinedSchedule:
    """Refine the schedule with `count` of `steps` steps computed."""
    pipe = load_pipeline(DEFAULT_WEIGHTS)
    profile = Profile.load(PROFILES / f"{steps}.json")
    cases = calibration_cases(seeds)

    def run(case: tuple[str, int]) -> Video:
        prompt, seed = case
        return generate(pipe, prompt, steps=steps, seed=seed)

    full = [run(case) for case in cases]
    bar = tqdm(unit="schedule", desc=f"{count} of {steps}", total=2 * sweeps * (count - 3) + 1)

    def quality(schedule: list[int]) -> float:
        ak.patch(pipe, profile=profile, schedule=schedule, forecast=1, correct=True)
        psnrs = [psnr(run(case), video) for case, video in zip(cases, full, strict=True)]
        ak.unpatch(pipe)
        bar.update()
        return statistics.mean(psnrs)

    plan = profile.plan(1)
    with bar:
        start = plan.schedule(plan.price_for(count))
        return refine_schedule(quality, start, sweeps=sweeps)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Refine schedules of the demo model.")
    parser.add_argument("--steps", type=int, choices=(50, 100), default=50)
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument(
        "--seeds", type=int, default=2, help="seeds of each of six prompts (default 2)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for count in arguments.counts:
        best = refined(arguments.steps, count, arguments.sweeps, arguments.seeds)
        gain = f"{best.before:.2f} -> {best.after:.2f} dB"
        print(f"{gain}, {best.measured} schedules: {best.steps}")
        known = json.loads(SCHEDULES.read_text()) if SCHEDULES.exists() else {}
        known.setdefault(str(arguments.steps), {})[str(count)] = best.steps
        SCHEDULES.write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
