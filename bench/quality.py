"""Quality against compute on the demo pipeline: methods x budgets x held-out videos.

    python bench/quality.py --out bench/results/quality            # about 40 minutes on two cores
    python bench/quality.py --out /tmp/quality --quick             # under 5 minutes

Every video is generated in full and by every method of `quality_methods.py`, one after the other,
so that a machine that gets slower gets slower for all. Rows are written to `raw.csv` video by
video, and a run that was broken off goes on where it stopped. `quality_report.py` makes the tables
and the plot.

The prompts are the eight digits that no profile was calibrated with, in every kind of motion.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

import quality_report
from adacache_kernels.demo.presets import PROFILES
from quality_methods import BUDGETS, OWN, QUICK_BUDGETS, SOLVERS, Method, full_runs, methods

MOTIONS = ("standing still", "moving slowly", "moving fast")
DIGITS = ("zero", "one", "two", "four", "five", "six", "seven", "nine")
QUICK_PROMPTS = ("a white two standing still", "a white nine moving slowly",
                 "a white four moving fast", "a white seven moving fast")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One generation, compared with the full run of the package's scheduler and of its own.

    `seconds` in the transformer, and `full_seconds` of the full run made right before.
    """

    key: str
    name: str
    solver: str
    steps: int
    budget: int
    prompt: str
    seed: int
    computed: int
    psnr: float
    ssim: float
    psnr_own: float
    seconds: float
    full_seconds: float
    cache_bytes: int


@dataclass(frozen=True)
class Video:
    """A video to make, and for how many scheduler steps."""

    prompt: str
    seed: int
    steps: int


def generate_rows(pipe: Any, video: Video, wanted: Iterable[Method]) -> list[Row]:
    """The full runs of a video and every method in `wanted`."""
    from adacache_kernels.metrics import psnr, ssim

    full = {method.solver: _generate(pipe, video, method) for method in full_runs(video.steps)}
    made = [(method, full[method.solver]) for method in full_runs(video.steps)]
    made += [(method, _generate(pipe, video, method)) for method in wanted]
    return [
        Row(
            key=method.key,
            name=method.name,
            solver=method.solver,
            steps=video.steps,
            budget=method.budget,
            prompt=video.prompt,
            seed=video.seed,
            computed=computed,
            psnr=psnr(frames, full[OWN][0]),
            ssim=ssim(frames, full[OWN][0]),
            psnr_own=psnr(frames, full[method.solver][0]),
            seconds=seconds,
            full_seconds=full[OWN][2],
            cache_bytes=cache_bytes,
        )
        for method, (frames, computed, seconds, cache_bytes) in made
    ]


def _generate(pipe: Any, video: Video, method: Method) -> tuple[Any, int, float, int]:
    """Frames, computed steps, seconds in the transformer, bytes of the cache."""
    import adacache_kernels as ak
    from adacache_kernels.demo.run import generate
    from adacache_kernels.evaluate.costs import timed_forwards

    pipe.scheduler = pipe.solvers[method.solver]
    if method.settings is not None:
        ak.patch(pipe, **method.settings)
    try:
        with timed_forwards(pipe.transformer) as seconds:
            frames = generate(pipe, video.prompt, steps=method.scheduler_steps, seed=video.seed)
        if method.settings is None:
            return frames, method.scheduler_steps, sum(seconds), 0
        summary = ak.summary(pipe)
        return frames, len(summary.computed_steps), sum(seconds), summary.cache_bytes
    finally:
        if method.settings is not None:
            ak.unpatch(pipe)


_PIPE: Any = None


def _load() -> None:
    """Once in each worker: the pipeline, on one thread, with every scheduler at hand."""
    global _PIPE
    import diffusers
    import torch

    from adacache_kernels.demo.pipeline import load_pipeline

    torch.set_num_threads(1)
    _PIPE = load_pipeline()
    config = _PIPE.scheduler.config
    _PIPE.solvers = {
        name: getattr(diffusers, cls).from_config(config) for name, cls in SOLVERS.items()
    }


def _work(task: tuple[Video, list[Method]]) -> list[Row]:
    return generate_rows(_PIPE, *task)


def run(videos: list[Video], quick: bool, raw: Path, jobs: int) -> None:
    """Append the rows of every video that `raw` does not have yet."""
    done = {(row["key"], row["prompt"], row["seed"]) for row in quality_report.read(raw)}
    tasks = []
    for video in videos:
        rows = methods(video.steps, PROFILES / f"{video.steps}.json", quick)
        missing = [m for m in rows if (m.key, video.prompt, str(video.seed)) not in done]
        if missing:
            tasks.append((video, missing))
    new = not raw.exists()
    context = multiprocessing.get_context("spawn")
    with raw.open("a", newline="") as file, context.Pool(jobs, initializer=_load) as pool:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        for rows in tqdm(pool.imap_unordered(_work, tasks), total=len(tasks), unit="video"):
            writer.writerows(
                asdict(row) for row in rows if (row.key, row.prompt, str(row.seed)) not in done
            )
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare methods on the demo pipeline.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", choices=sorted(BUDGETS), default=None)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="4 videos of 50 steps")
    arguments = parser.parse_args()

    if arguments.quick:
        videos = [Video(prompt, 0, steps) for steps in QUICK_BUDGETS for prompt in QUICK_PROMPTS]
    else:
        videos = [
            Video(f"a white {digit} {motion}", seed, steps)
            for steps in arguments.steps or sorted(BUDGETS)
            for seed in range(arguments.seeds)
            for digit in DIGITS
            for motion in MOTIONS
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    raw = arguments.out / "raw.csv"
    start = time.perf_counter()
    run(videos, arguments.quick, raw, arguments.jobs)
    quality_report.write(raw, arguments.out)
    print((arguments.out / "table.md").read_text())
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
