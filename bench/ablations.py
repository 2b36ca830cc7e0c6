"""The paper's ablations on the demo pipeline: metric, location, per layer, motion regularisation.

    python bench/ablations.py --out bench/results/ablations

Each variant has the same codebook, its thresholds scaled so that it computes as many steps of
calibration videos as the first variant does.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
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
CALIBRATION = [
    ("a white three standing still", 1000),
    ("a white eight moving slowly", 1001),
    ("a white eight moving fast", 1002),
]
ROUNDS = 7
VARIANTS: dict[str, dict[str, Any]] = {
    "l1, middle": {},
    "l2": {"metric": "l2"},
    "cosine": {"metric": "cosine"},
    "start": {"cache_loc": "start"},
    "end": {"cache_loc": "end"},
    "all three": {"cache_loc": ("start", "middle", "end")},
    "block": {"cache_res": "block"},
}


def mean_computed(pipe: Any, config: Any, settings: dict[str, Any]) -> float:
    """Steps, parts counted as parts, over the calibration videos."""
    found = []
    for prompt, seed in CALIBRATION:
        ak.patch(pipe, config, **settings)
        generate(pipe, prompt, steps=STEPS, seed=seed)
        found.append(STEPS * ak.summary(pipe).computed_fraction)
        ak.unpatch(pipe)
    return statistics.mean(found)


def matched_scale(computed: Callable[[float], float], target: float) -> float:
    """The scale of the thresholds, by bisection of its logarithm; more of it computes less."""
    low, high = 1 / 16, 4.0
    for _ in range(ROUNDS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if computed(middle) > target else (low, middle)
    return math.sqrt(low * high)


def methods() -> list[str]:
    """Names for `--methods`; MoReg with the constants of the demo's profile."""
    pipe = load_pipeline(DEFAULT_WEIGHTS)
    moreg = {
        "apply_moreg": True,
        "moreg_hyp": Profile.load(PROFILES / f"{STEPS}.json").moreg_hyp,
        "mograd_mul": 0.0,
    }
    target = mean_computed(pipe, None, {"codebook": _codebook(1.0)})
    named = []
    for settings in (*VARIANTS.values(), moreg):

        def computed(scale: float, settings: dict[str, Any] = settings) -> float:
            return mean_computed(pipe, None, {"codebook": _codebook(scale), **settings})

        scale = matched_scale(computed, target) if settings else 1.0
        named.append(_name(scale, settings))

    def of_layers(scale: float) -> float:
        return mean_computed(pipe, ak.PerLayerConfig(codebook=_codebook(scale)), {})

    scale = matched_scale(of_layers, target)
    return [*named, f"per-layer:codebook={_codebook(scale)}"]


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
