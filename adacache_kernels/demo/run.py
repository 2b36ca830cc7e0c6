"""Generate the demo's videos and measure them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import adacache_kernels as ak

from ..measure.psnr_ssim import Video, psnr, ssim
from ..measure.timing import timed_forwards
from .pipeline import check_prompts

FRAMES, SIZE = 16, 32
UNPATCHED = "unpatched"
FEWER_STEPS = "(fewer steps)"


@dataclass(frozen=True)
class Run:
    """One generated video.

    Args:
        name: "unpatched", the name of a config, or that name with " (fewer steps)".
        prompt: the text.
        steps: scheduler steps.
        computed: number of computed steps.
        transformer_seconds: wall time in the transformer.
        pipeline_seconds: wall time of the whole pipeline.
        video: `[16, 32, 32, 3]` in 0 to 1.
        step_seconds: wall time in the transformer, by step.
        summary: of a patched run; None for an unpatched one.
    """

    name: str
    prompt: str
    steps: int
    computed: int
    transformer_seconds: float
    pipeline_seconds: float
    video: Video
    step_seconds: list[float]
    summary: ak.Summary | None = None


@dataclass(frozen=True)
class MeasuredRun:
    """A run, compared with the unpatched run of its prompt.

    Args:
        run: the run.
        speedup: of the transformer.
        pipeline_speedup: of the whole pipeline.
        psnr: in dB; infinite for equal videos.
        ssim: structural similarity.
    """

    run: Run
    speedup: float
    pipeline_speedup: float
    psnr: float
    ssim: float


@dataclass
class DemoResult:
    """All runs of the demo, in display order.

    Args:
        steps: scheduler steps.
        seed: of the initial noise.
        guidance: guidance scale.
        configs: settings for `patch`, by name.
        measured: the runs, prompt by prompt.
    """

    steps: int
    seed: int
    guidance: float
    configs: dict[str, dict[str, Any]]
    measured: list[MeasuredRun] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """Return the prompts, with repetitions."""
        return [m.run.prompt for m in self.measured if m.run.name == UNPATCHED]

    def of_prompt(self, index: int) -> list[MeasuredRun]:
        """Return the runs of the prompt at `index`."""
        starts = [i for i, m in enumerate(self.measured) if m.run.name == UNPATCHED]
        ends = [*starts[1:], len(self.measured)]
        return self.measured[starts[index] : ends[index]]

    def named(self, name: str) -> list[MeasuredRun]:
        """Return the runs with a name, one for each prompt."""
        return [m for m in self.measured if m.run.name == name]

    def names(self) -> list[str]:
        """Return the names of the runs, in order."""
        return list(dict.fromkeys(m.run.name for m in self.measured))

    def step_milliseconds(self) -> tuple[float, float]:
        """Return the median wall time of a computed and of a reused step of the transformer.

        Both are in ms, and NaN if there was no such step.
        """
        computed, reused = [], []
        for summary, seconds in self._patched():
            computed += [seconds[step - 1] for step in summary.computed_steps]
            reused += [seconds[step - 1] for step in summary.reused_steps]
        return _median_ms(computed), _median_ms(reused)

    def cache_bytes(self) -> int:
        """Return the most cache bytes of any run."""
        return max((summary.cache_bytes for summary, _ in self._patched()), default=0)

    def _patched(self) -> Iterator[tuple[ak.Summary, list[float]]]:
        for measured in self.measured:
            if measured.run.summary is not None:
                yield measured.run.summary, measured.run.step_seconds


def generate(pipe: Any, prompt: str, *, steps: int, guidance: float = 4.0, seed: int = 0) -> Video:
    """Generate one video.

    Args:
        pipe: the demo's pipeline.
        prompt: of words that it knows.
        steps: scheduler steps.
        guidance: guidance scale.
        seed: of the initial noise.

    Returns:
        `[16, 32, 32, 3]` in 0 to 1.
    """
    frames = pipe(
        prompt,
        negative_prompt="",
        video_length=FRAMES,
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        clean_caption=False,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).frames
    return np.asarray(frames[0], dtype=np.float32)


def run_demo(
    pipe: Any,
    prompts: Sequence[str],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    steps: int = 50,
    guidance: float = 4.0,
    seed: int = 0,
    progress: bool = True,
) -> DemoResult:
    """Generate every prompt unpatched, with every config, and with as few steps as each computed.

    The unpatched run happens twice, before and after the others, and its times are averaged: the
    speed of a shared machine drifts. A short run before all of them warms up.

    Args:
        pipe: the demo's pipeline, unpatched.
        prompts: of words that it knows.
        configs: settings for `patch`, by name.
        steps: scheduler steps.
        guidance: guidance scale.
        seed: of the initial noise.
        progress: show a progress bar.

    Raises:
        ValueError: there is no prompt, a word is unknown, or `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; a generation has at least one step")
    check_prompts(pipe, prompts)
    settings = {name: dict(config) for name, config in configs.items()}
    result = DemoResult(steps, seed, guidance, settings)
    generate(pipe, prompts[0], steps=min(steps, 2), guidance=guidance, seed=seed)
    total = len(prompts) * (2 + 2 * len(configs))
    with tqdm(total=total, unit="video", disable=not progress) as bar:
        for prompt in prompts:
            result.measured += _run_prompt(pipe, prompt, result, bar)
    return result


def _run_prompt(pipe: Any, prompt: str, result: DemoResult, bar: tqdm[Any]) -> list[MeasuredRun]:
    def timed(name: str, steps: int, config: Mapping[str, Any] | None = None) -> Run:
        bar.set_description(f"{prompt}: {name}")
        run = _timed_run(pipe, prompt, name, steps, result, config)
        bar.update()
        return run

    before = timed(UNPATCHED, result.steps)
    patched = [timed(name, result.steps, config) for name, config in result.configs.items()]
    fewer = [timed(f"{run.name} {FEWER_STEPS}", run.computed) for run in patched]
    after = timed(UNPATCHED, result.steps)
    reference = _averaged(before, after)
    in_order = [run for pair in zip(patched, fewer, strict=True) for run in pair]
    return [_measure(run, reference) for run in (reference, *in_order)]


def _timed_run(
    pipe: Any,
    prompt: str,
    name: str,
    steps: int,
    result: DemoResult,
    config: Mapping[str, Any] | None,
) -> Run:
    summary = None
    if config is not None:
        ak.patch(pipe, **config)
    try:
        with timed_forwards(pipe.transformer) as seconds:
            start = time.perf_counter()
            video = generate(pipe, prompt, steps=steps, guidance=result.guidance, seed=result.seed)
            pipeline_seconds = time.perf_counter() - start
        if config is not None:
            summary = ak.summary(pipe)
    finally:
        if config is not None:
            ak.unpatch(pipe)
    computed = len(summary.computed_steps) if summary else steps
    return Run(
        name, prompt, steps, computed, sum(seconds), pipeline_seconds, video, seconds, summary
    )


def _averaged(before: Run, after: Run) -> Run:
    return Run(
        before.name,
        before.prompt,
        before.steps,
        before.computed,
        (before.transformer_seconds + after.transformer_seconds) / 2,
        (before.pipeline_seconds + after.pipeline_seconds) / 2,
        before.video,
        [(a + b) / 2 for a, b in zip(before.step_seconds, after.step_seconds, strict=True)],
    )


def _measure(run: Run, reference: Run) -> MeasuredRun:
    return MeasuredRun(
        run,
        speedup=reference.transformer_seconds / run.transformer_seconds,
        pipeline_speedup=reference.pipeline_seconds / run.pipeline_seconds,
        psnr=psnr(run.video, reference.video),
        ssim=ssim(run.video, reference.video),
    )


def _median_ms(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds) if seconds else float("nan")
