"""Fits the codebooks `demo-fast` and `demo-slow` to the demo model.

    python -m bench.demo_model.fit_codebooks [--weights DIR] [--candidates 160] [--out FILE.json]

The published codebooks were made for Open-Sora's distances. Here, thresholds are drawn at random
between the distances that the demo model has, each codebook generates the calibration prompts, and
PSNR against the unpatched run is noted with the number of computed steps. Chosen are, of the
candidates that give still videos fewer steps than fast ones,

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

PROMPTS = tuple(
    f"a white {digit} {motion}"
    for digit in ("three", "eight")
    for motion in ("standing still", "moving slowly", "moving fast")
)
STEPS, GUIDANCE, SEED = 50, 4.0, 1000
LOWEST, HIGHEST = 0.035, 0.16


@dataclass(frozen=True)
class Trial:
    """A codebook and what it gave over the calibration prompts."""

    codebook: list[tuple[float, int]]
    steps: list[int]
    psnr: list[float]

    @property
    def mean_steps(self) -> float:
        return statistics.mean(self.steps)

    @property
    def mean_psnr(self) -> float:
        return statistics.mean(self.psnr)

    def mean_steps_of(self, motion: str) -> float:
        """Over the calibration prompts that end in `motion`."""
        pairs = zip(PROMPTS, self.steps, strict=True)
        return statistics.mean(steps for prompt, steps in pairs if prompt.endswith(motion))

    @property
    def is_adaptive(self) -> bool:
        """Whether what stands still gets fewer steps than what moves fast."""
        return self.mean_steps_of("standing still") < self.mean_steps_of("moving fast")


def draw_codebook(draw: random.Random) -> list[tuple[float, int]]:
    """Two to four rising thresholds with falling rates, and rate 1 beyond."""
    count = draw.randint(2, 4)
    thresholds = sorted(round(draw.uniform(LOWEST, HIGHEST), 3) for _ in range(count))
    if len(set(thresholds)) < count:
        return draw_codebook(draw)
    rates = sorted((draw.randint(2, 6) for _ in range(count)), reverse=True)
    pairs = [*zip(thresholds, rates, strict=True), (1.0, 1)]
    # Of equal rates the highest threshold says it all.
    return [pair for pair, after in itertools.pairwise([*pairs, (2.0, 0)]) if pair[1] != after[1]]


def try_codebook(pipe: Any, codebook: list[tuple[float, int]], reference: dict[str, Any]) -> Trial:
    """Generate every calibration prompt with a codebook."""
    ak.patch(pipe, codebook=codebook)
    steps, quality = [], []
    for prompt, expected in reference.items():
        video = generate(pipe, prompt, steps=STEPS, guidance=GUIDANCE, seed=SEED)
        steps.append(len(ak.summary(pipe).computed_steps))
        quality.append(psnr(video, expected))
    ak.unpatch(pipe)
    return Trial(codebook, steps, quality)


def choose(trials: list[Trial], slow_psnr: float, fast_steps: float) -> dict[str, Trial]:
    """The two codebooks that the module's docstring promises."""
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
        for prompt in PROMPTS
    }
    draw = random.Random(SEED)
    candidates = [draw_codebook(draw) for _ in range(arguments.candidates)]
    trials = [
        try_codebook(pipe, codebook, reference) for codebook in tqdm(candidates, unit="codebook")
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
