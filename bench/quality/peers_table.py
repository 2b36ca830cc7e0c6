"""Compare this package with caches of other packages, at about equal work, in one run.

    python -m bench.quality.peers_table --out bench/quality/results/peers  # 25 minutes on a core
    python -m bench.quality.peers_table --prompts 3 --out peers_quick  # 5 minutes

The first table is of the demo pipeline, 50 steps, each prompt once. It has our methods, and the
external caches with and without workarounds (`adacache_kernels/evaluate/external_caches.py`). Their
thresholds were chosen on three videos, by work alone: about a half and a third of the full run's.
`matched.md` lists the methods near these shares.

The second table, in `wan`, is of a Wan pipeline with random weights
(`bench/runtime/random_wan.py`), which the external caches support without workarounds. It compares
waits, work, memory and time; its PSNR means nothing. cache-dit is left out if it is not installed.
"""

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
from adacache_kernels.evaluate.results import Row, read_rows
from adacache_kernels.evaluate.table_lines import table_lines
from adacache_kernels.evaluate.tables import legend, markdown
from bench.quality.paper_table import CALIBRATION, NEAR, PROMPTS, is_refined, measured_ratios, ours

STEPS, WAN_STEPS = 50, 20
BUDGETS = (0.5, 0.34)
RANDOM = (
    f"A Wan model with random weights, {WAN_STEPS} steps: PSNR, SSIM and LPIPS mean nothing here; "
    "the table compares work, reads, held bytes and time."
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
    # One forecast of all blocks, with the same computed steps as the forecasts of every module.
    *(f"adacache:schedule={tuple(range(1, STEPS + 1, k))}:forecast=1" for k in (2, 3)),
    # The interval 2 computes the same steps as diffusers' implementation of the method, below.
    *(f"taylorseer:interval={k}:order=1" for k in (2, 3)),
)
TAYLOR = "TaylorSeerCache:taylor_factors_dtype=float32:disable_cache_before_step=1"
PAB = (
    "PyramidAttentionBroadcast:spatial_attention_block_skip_range={}"
    ":temporal_attention_block_skip_range={}:cross_attention_block_skip_range={}"
)
DB_CACHE = "cache-dit:Fn_compute_blocks=1:max_warmup_steps=4:residual_diff_threshold={}"


def demo_methods(ratios: Path) -> list[str]:
    """Return names for `--methods`, see `adacache_kernels/evaluate/method_spec.py`."""
    mag_cache = f"MagCache:mag_ratios={ratios}:retention_ratio=0.1"
    without_workarounds = [
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
        *without_workarounds,
        *(["cache-dit:Fn_compute_blocks=1:help=False"] * has_cache_dit()),
    ]


def wan_methods(ratios: Path) -> list[str]:
    """Return names for the Wan pipeline; fixed schedules compute half of the steps."""
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
    """Return whether cache-dit is installed."""
    return find_spec("cache_dit") is not None


def _db_caches(*thresholds: float) -> list[str]:
    if not has_cache_dit():
        return []
    names = [DB_CACHE.format(threshold) for threshold in thresholds]
    return [*names, *(f"{name}:taylorseer_order=1" for name in names)]


def wan_ratios() -> tuple[float, ...]:
    """Measure the ratios for MagCache on one Wan video that is in no comparison."""
    subject = pipelines.load(WAN, device="cpu")
    prompt, seed = CALIBRATION
    return ak.measure_ratios(subject.pipe, lambda: subject.generate(prompt, WAN_STEPS, seed))


def matched(rows: Sequence[Row]) -> str:
    """Return a table for each budget: the methods whose work is near it, the best first."""
    text = []
    for budget in BUDGETS:
        lines = table_lines(rows, against=ours(STEPS, round(budget * STEPS)))
        near = [line for line in lines if line.work and abs(line.work - budget) < NEAR * budget]
        near.sort(key=lambda line: -line.psnr)
        text += [f"{budget:.0%} of the work of the full run, within {NEAR:.0%} of that:", ""]
        text += [*markdown(near), "", *legend(near), ""]
    return "\n".join(text)


def add_warning(table: Path) -> None:
    """Add the note on random weights above a table, once."""
    text = table.read_text()
    if not text.startswith(RANDOM):
        table.write_text(f"{RANDOM}\n\n{text}")


def run(pipeline: str, methods: list[str], prompts: list[str], steps: int, out: Path) -> int:
    """Run `adacache bench quality` and return its exit code."""
    options = ["--pipeline", pipeline, "--steps", str(steps), "--device", "cpu", "--out", str(out)]
    return cli.main(["bench", "quality", "--prompts", *prompts, "--methods", *methods, *options])


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Compare with caches of other packages.")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many (default all)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The prompts alternate between the motions: the first 3 have one of each.
    prompts = PROMPTS[: arguments.prompts]
    wan = arguments.out / "wan"
    wan.mkdir(parents=True, exist_ok=True)
    for folder, measure in ((arguments.out, lambda: measured_ratios(STEPS)), (wan, wan_ratios)):
        if not (folder / "mag_ratios.json").exists():
            (folder / "mag_ratios.json").write_text(json.dumps(measure()))
    methods = demo_methods(arguments.out / "mag_ratios.json")
    code = run("demo", methods, prompts, STEPS, arguments.out)
    if code == 0:
        rows = read_rows(arguments.out / "rows.jsonl")
        (arguments.out / "matched.md").write_text(matched(rows))
    methods = wan_methods(wan / "mag_ratios.json")
    code = run(WAN, methods, prompts[:3], WAN_STEPS, wan) or code
    if (wan / "table.md").exists():
        add_warning(wan / "table.md")
    return code


if __name__ == "__main__":
    sys.exit(main())
