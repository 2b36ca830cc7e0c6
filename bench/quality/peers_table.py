"""This package against caches of others, by their own code, at about equal work, in one run.

    python -m bench.quality.peers_table --out bench/quality/results/peers  # 25 minutes on a core
    python -m bench.quality.peers_table --prompts 3 --out peers_quick  # 5 minutes

On the demo pipeline, 50 steps, each prompt once: ours, and the peers with the help that they need
there (`adacache_kernels/evaluate/external_caches.py`) and as they are. Thresholds were chosen by
work alone, on three videos: about a half and a third of that of the full run; `matched.md` has what
does so. Then, in `wan`, on a Wan pipeline with random weights (`bench/runtime/random_wan.py`),
which peers support by themselves: waits, work, memory and time, whose PSNR means nothing. cache-dit
is left out where it is not installed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.evaluate import pipelines
from adacache_kernels.evaluate.results import Row, read
from adacache_kernels.evaluate.tables import legend, lines, markdown
from bench.quality.paper_table import CALIBRATION, NEAR, PROMPTS, is_refined, measured_ratios, ours

STEPS, WAN_STEPS = 50, 20
BUDGETS = (0.5, 0.34)
RANDOM = (
    f"A Wan model with random weights, {WAN_STEPS} steps: PSNR, SSIM and LPIPS say nothing about "
    "quality here; work, reads, bytes held and time are what the table is for."
)
WAN = f"{os.path.relpath(Path(__file__).parents[1] / 'runtime' / 'random_wan.py')}:build"

OURS = (
    "fast",
    "forecast",
    *(
        method.format(count)
        for count in (25, 17)
        for method in (
            "profile:computed_steps={}",
            "even:{}:forecast=1",
            "even:{}:forecast=1:correct=True",
            "taylorseer:computed_steps={}:order=1",
            "taylorseer:computed_steps={}:order=2",
            "steps:{}",
        )
    ),
    # One forecast of all blocks, in the steps in which that of every module runs.
    *(f"adacache:schedule={tuple(range(1, STEPS + 1, k))}:forecast=1" for k in (2, 3)),
    # An interval of 2 runs in the same steps as diffusers' own, below: two codes for one method.
    *(f"taylorseer:interval={k}:order=1" for k in (2, 3)),
)
TAYLOR = "TaylorSeerCache:taylor_factors_dtype=float32:disable_cache_before_step=1"
PAB = (
    "PyramidAttentionBroadcast:spatial_attention_block_skip_range={}"
    ":temporal_attention_block_skip_range={}:cross_attention_block_skip_range={}"
)
DB_CACHE = "cache-dit:Fn_compute_blocks=1:max_warmup_steps=4:residual_diff_threshold={}"


def demo_methods(ratios: Path) -> list[str]:
    """Names for `--methods`, see `adacache_kernels/evaluate/method_spec.py`."""
    mag_cache = f"MagCache:mag_ratios={ratios}:retention_ratio=0.1"
    as_they_are = [
        "FirstBlockCache:threshold=0.1:help=False",
        "TaylorSeerCache:cache_interval=2:help=False",
        f"{mag_cache}:num_inference_steps={STEPS}:help=False",
        "PyramidAttentionBroadcast:spatial_attention_block_skip_range=2:help=False",
    ]
    refined = [ours(STEPS, count) for count in (25, 17) if is_refined(STEPS, count)]
    return [
        *refined,
        *OURS,
        *(f"FirstBlockCache:threshold={threshold}" for threshold in (0.1, 0.32)),
        f"{mag_cache}:threshold=0.06:max_skip_steps=4",
        f"{mag_cache}:threshold=0.15:max_skip_steps=6",
        *(f"{TAYLOR}:cache_interval={k}:max_order={order}" for k in (2, 3) for order in (1, 2)),
        "TaylorSeerCache:cache_interval=2",
        PAB.format(2, 3, 6),
        PAB.format(4, 6, 9),
        *_db_caches(0.12, 0.5),
        *as_they_are,
        *(["cache-dit:Fn_compute_blocks=1:help=False"] * has_cache_dit()),
    ]


def wan_methods(ratios: Path) -> list[str]:
    """Names for the Wan pipeline; half of the steps where a schedule is fixed beforehand."""
    return [
        "fast",
        "forecast",
        f"even:{WAN_STEPS // 2}:forecast=1",
        "taylorseer:interval=2",
        "FirstBlockCache:threshold=0.1",
        f"MagCache:mag_ratios={ratios}:retention_ratio=0.1:threshold=0.01",
        f"{TAYLOR}:cache_interval=2",
        "TaylorSeerCache:cache_interval=2:help=False",
        "PyramidAttentionBroadcast:spatial_attention_block_skip_range=2"
        ":cross_attention_block_skip_range=6",
        *_db_caches(0.11),
    ]


def has_cache_dit() -> bool:
    return find_spec("cache_dit") is not None


def _db_caches(*thresholds: float) -> list[str]:
    if not has_cache_dit():
        return []
    names = [DB_CACHE.format(threshold) for threshold in thresholds]
    return [*names, *(f"{name}:taylorseer_order=1" for name in names)]


def wan_ratios() -> tuple[float, ...]:
    """Of the Wan pipeline, of one video that is in no comparison."""
    subject = pipelines.load(WAN, device="cpu")
    prompt, seed = CALIBRATION
    return ak.measure_ratios(subject.pipe, lambda: subject.generate(prompt, WAN_STEPS, seed))


def matched(rows: Sequence[Row]) -> str:
    """A table for each budget: the methods whose work is within `NEAR` of it, the best first."""
    text = []
    for budget in BUDGETS:
        found = lines(rows, against=ours(STEPS, round(budget * STEPS)))
        near = [line for line in found if line.work and abs(line.work - budget) < NEAR * budget]
        near.sort(key=lambda line: -line.psnr)
        text += [f"{budget:.0%} of the work of the full run, within {NEAR:.0%} of that:", ""]
        text += [*markdown(near), "", *legend(near), ""]
    return "\n".join(text)


def say_what_psnr_means(table: Path) -> None:
    """Above the table of a model with random weights."""
    text = table.read_text()
    if not text.startswith(RANDOM):
        table.write_text(f"{RANDOM}\n\n{text}")


def run(pipeline: str, named: list[str], prompts: list[str], steps: int, out: Path) -> int:
    """`adacache bench quality`; its exit code."""
    options = ["--pipeline", pipeline, "--steps", str(steps), "--device", "cpu", "--out", str(out)]
    return cli.main(["bench", "quality", "--prompts", *prompts, "--methods", *named, *options])


def main() -> int:
    parser = argparse.ArgumentParser(description="This package against caches of others.")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many (default all)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Spread over the motions: 3 is one of each.
    prompts = PROMPTS[: arguments.prompts]
    wan = arguments.out / "wan"
    wan.mkdir(parents=True, exist_ok=True)
    for folder, measure in ((arguments.out, lambda: measured_ratios(STEPS)), (wan, wan_ratios)):
        if not (folder / "mag_ratios.json").exists():
            (folder / "mag_ratios.json").write_text(json.dumps(measure()))
    named = demo_methods(arguments.out / "mag_ratios.json")
    code = run("demo", named, prompts, STEPS, arguments.out)
    if code == 0:
        rows = read(arguments.out / "rows.jsonl")
        (arguments.out / "matched.md").write_text(matched(rows))
    named = wan_methods(wan / "mag_ratios.json")
    code = run(WAN, named, prompts[:3], WAN_STEPS, wan) or code
    if (wan / "table.md").exists():
        say_what_psnr_means(wan / "table.md")
    return code


if __name__ == "__main__":
    sys.exit(main())
