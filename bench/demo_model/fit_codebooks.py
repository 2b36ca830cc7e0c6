"""Fit the codebooks `demo-fast` and `demo-slow` to the demo model.

    python -m bench.demo_model.fit_codebooks [--weights DIR] [--candidates 160] [--out FILE.json]

The published codebooks fit the distances of Open-Sora. Here, thresholds are drawn at random between
the distances of the demo model. Each codebook generates the calibration prompts, which gives its
PSNR against the unpatched run and its computed steps. Two codebooks are chosen from those with
fewer computed steps in still videos than in fast ones:

- demo-slow: the fewest computed steps with at least --slow-psnr dB on every prompt;
- demo-fast: the best mean PSNR with at most --fast-steps computed steps on average.

The calibration prompts are not those of `adacache demo`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import adacache_kernels as ak
from adacache_kernels.demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
from adacache_kernels.demo.run import generate
from adacache_kernels.measure.psnr_ssim import psnr
from bench.demo_model.make_profiles import CALIBRATION_PROMPTS

STEPS, GUIDANCE, SEED = 50, 4.0, 1000
LOWEST, HIGHEST = 0.035, 0.16


@dataclass(frozen=True)
class MeasuredCodebook:
    """A codebook with its computed steps and PSNR in dB of each calibration prompt."""

    codebook: list[tuple[float, int]]
    steps: list[int]
    psnr: list[float]

    @property
    def mean_steps(self) -> float:
        """Return the mean number of computed steps."""
        return statistics.mean(self.steps)

    @property
    def mean_psnr(self) -> float:
        """Return the mean PSNR in dB."""
        return statistics.mean(self.psnr)

    def mean_steps_of(self, motion: str) -> float:
        """Return the mean number of computed steps of the prompts that end in `motion`."""
        pairs = zip(CALIBRATION_PROMPTS, self.steps, strict=True)
        return statistics.mean(steps for prompt, steps in pairs if prompt.endswith(motion))

    @property
    def is_adaptive(self) -> bool:
        """Return whether still videos have fewer computed steps than fast ones."""
        return self.mean_steps_of("standing still") < self.mean_steps_of("moving fast")


def draw_codebook(draw: random.Random) -> list[tuple[float, int]]:
    """Draw two to four rising thresholds with falling rates, and the rate 1 beyond."""
    count = draw.randint(2, 4)
    thresholds = sorted(round(draw.uniform(LOWEST, HIGHEST), 3) for _ in range(count))
    if len(set(thresholds)) < count:
        return draw_codebook(draw)
    rates = sorted((draw.randint(2, 6) for _ in range(count)), reverse=True)
    pairs = [*zip(thresholds, rates, strict=True), (1.0, 1)]
    # Of thresholds with equal rates, only the highest has an effect.
    return [pair for pair, after in itertools.pairwise([*pairs, (2.0, 0)]) if pair[1] != after[1]]


def measure_codebook(
    pipe: Any, codebook: list[tuple[float, int]], reference: dict[str, Any]
) -> MeasuredCodebook:
    """Generate every calibration prompt with a codebook."""
    ak.patch(pipe, codebook=codebook)
    steps, quality = [], []
    for prompt, expected in reference.items():
        video = generate(pipe, prompt, steps=STEPS, guidance=GUIDANCE, seed=SEED)
        steps.append(len(ak.summary(pipe).computed_steps))
        quality.append(psnr(video, expected))
    ak.unpatch(pipe)
    return MeasuredCodebook(codebook, steps, quality)


def choose(
    trials: list[MeasuredCodebook], slow_psnr: float, fast_steps: float
) -> dict[str, MeasuredCodebook]:
    """Return the two codebooks that the module's docstring describes."""
    adaptive = [trial for trial in trials if trial.is_adaptive]
    good = [trial for trial in adaptive if min(trial.psnr) >= slow_psnr]
    quick = [trial for trial in adaptive if trial.mean_steps <= fast_steps]
    if not good or not quick:
        raise SystemExit("no candidate reached the targets; try more of them with --candidates")
    return {
        "demo-slow": min(good, key=lambda trial: trial.mean_steps),
        "demo-fast": max(quick, key=lambda trial: trial.mean_psnr),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Fit the demo model's codebooks.")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--candidates", type=int, default=160)
    parser.add_argument("--slow-psnr", type=float, default=36.0)
    parser.add_argument("--fast-steps", type=float, default=19.5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    pipe = load_pipeline(arguments.weights)
    reference = {
        prompt: generate(pipe, prompt, steps=STEPS, guidance=GUIDANCE, seed=SEED)
        for prompt in CALIBRATION_PROMPTS
    }
    draw = random.Random(SEED)
    candidates = [draw_codebook(draw) for _ in range(arguments.candidates)]
    trials = [
        measure_codebook(pipe, codebook, reference)
        for codebook in tqdm(candidates, unit="codebook")
    ]
    chosen = choose(trials, arguments.slow_psnr, arguments.fast_steps)
    for name, trial in chosen.items():
        print(
            f"{name}: {trial.codebook}  {trial.mean_steps:.1f} steps ({min(trial.steps)} to "
            f"{max(trial.steps)}), PSNR {trial.mean_psnr:.1f} dB (worst {min(trial.psnr):.1f})"
        )
    if arguments.out:
        record = {name: asdict(trial) for name, trial in chosen.items()}
        record["trials"] = [asdict(trial) for trial in trials]  # type: ignore[assignment]
        arguments.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
