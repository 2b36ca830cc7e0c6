"""The paper's ablations on the demo pipeline: metric, location, per layer, motion regularisation.

    python bench/ablations.py --out bench/results/ablations

Each variant has the same codebook, its thresholds scaled by the median of the variant's own
distances over full runs of two calibration videos, so that all compute about as much. Two thirds of
the rows differ by a step or so in the mean, which is shown beside the quality.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

import adacache_kernels as ak
from adacache_kernels import cli
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.presets import PROFILES
from adacache_kernels.demo.run import generate
from adacache_kernels.profile import Profile
from paper_table import PROMPTS

STEPS = 50
CODEBOOK = {0.075: 4, 0.107: 2}
CALIBRATION = [("a white three standing still", 1000), ("a white eight moving fast", 1001)]
VARIANTS: dict[str, dict[str, Any]] = {
    "l1, middle": {},
    "l2": {"metric": "l2"},
    "cosine": {"metric": "cosine"},
    "start": {"cache_loc": "start"},
    "end": {"cache_loc": "end"},
    "all three": {"cache_loc": ("start", "middle", "end")},
    "block": {"cache_res": "block"},
}


def median_distance(pipe: Any, settings: dict[str, Any]) -> float:
    """Of all steps of the calibration videos, every one computed."""
    found: list[float] = []
    for prompt, seed in CALIBRATION:
        ak.patch(pipe, codebook={1e9: 1}, **settings)
        generate(pipe, prompt, steps=STEPS, seed=seed)
        found += [d for d in ak.summary(pipe).distances if d is not None]
        ak.unpatch(pipe)
    return statistics.median(found)


def methods() -> list[str]:
    """Names for `--methods`; MoReg with the constants of the demo's profile."""
    pipe = load_pipeline(DEFAULT_WEIGHTS)
    base = median_distance(pipe, {})
    named = []
    for settings in VARIANTS.values():
        scale = median_distance(pipe, settings) / base
        named.append(_name(scale, settings))
    a, b, d = Profile.load(PROFILES / f"{STEPS}.json").moreg_hyp
    moreg = {"apply_moreg": True, "moreg_hyp": (a, b, d), "mograd_mul": 0.0}
    # The score is 1 on average by its constants, so that thresholds stay as they are.
    named.append(_name(1.0, moreg))
    named += [
        f"per-layer:codebook={_codebook(median_distance(pipe, {'cache_res': 'block'}) / base * f)}"
        for f in (1.0, 1.6)
    ]
    return named


def _name(scale: float, settings: dict[str, Any]) -> str:
    options = "".join(f":{key}={value}" for key, value in settings.items())
    return f"adacache:codebook={_codebook(scale)}{options}"


def _codebook(scale: float) -> dict[float, int]:
    scaled = {float(f"{threshold * scale:.4g}"): rate for threshold, rate in CODEBOOK.items()}
    return {**scaled, 1e9: 1}


def main() -> int:
    parser = argparse.ArgumentParser(description="The paper's ablations on the demo pipeline.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = ["--steps", str(STEPS), "--seeds", str(arguments.seeds), "--out", str(arguments.out)]
    return cli.main(
        ["bench", "quality", "--prompts", *PROMPTS, "--methods", *methods(), "--no-flops", *given]
    )


if __name__ == "__main__":
    sys.exit(main())
