"""The demo's table, its notes and its JSON."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import torch

import adacache_kernels as ak

from .run import UNPATCHED, DemoResult, MeasuredRun

HEADER = (
    "prompt",
    "run",
    "steps",
    "computed",
    "transformer s",
    "speedup",
    "pipeline s",
    "speedup",
    "PSNR dB",
    "SSIM",
)
LEFT_COLUMNS = 2
"""Columns that are aligned to the left."""

FEWEST_STEPS = 5
"""With fewer steps, there is none between the first two and the last two."""


def table(result: DemoResult) -> str:
    """Return the table: a row for each prompt and run, then the means over the prompts.

    The worst PSNR is in brackets behind the mean.
    """
    rows: list[Sequence[str]] = [HEADER]
    for index, prompt in enumerate(result.prompts):
        for number, measured in enumerate(result.of_prompt(index)):
            rows.append((prompt if number == 0 else "", *_cells(measured)))
    if len(result.prompts) > 1:
        for number, name in enumerate(result.names()):
            label = f"mean of {len(result.prompts)}" if number == 0 else ""
            rows.append((label, *_mean_cells(result.named(name))))
    return _aligned(rows)


def notes(result: DemoResult) -> list[str]:
    """Return the notes below the table: times of single steps, memory, and definitions."""
    computed, reused = result.step_milliseconds()
    lines = []
    if not math.isnan(reused):
        lines.append(
            f"A computed step of the transformer takes {computed:.1f} ms, a reused one "
            f"{reused:.1f} ms ({100 * reused / computed:.0f} %); the cache holds "
            f"{result.cache_bytes() / 2**20:.2f} MiB."
        )
    if result.steps < FEWEST_STEPS:
        lines.append(
            f"With {result.steps} step{'s' if result.steps > 1 else ''} nothing can be reused: the "
            "first two steps, which give the first distance, and the last two are always computed."
        )
    elif math.isnan(reused):
        lines.append("No step was reused: every distance has rate 1, or there are too few steps.")
    lines.append(
        "Times are wall times. Those of the unpatched run are the means of two runs, before and "
        "after the others. PSNR and SSIM compare with the unpatched video of the same seed. 'fewer "
        "steps' is the unpatched pipeline with as many scheduler steps as were computed."
    )
    return lines


def to_json(result: DemoResult) -> dict[str, Any]:
    """Return everything but the videos, for JSON; infinite and missing numbers are None."""
    computed, reused = result.step_milliseconds()
    return {
        "versions": _versions(),
        "steps": result.steps,
        "seed": result.seed,
        "guidance": result.guidance,
        "configs": {
            name: ak.AdaCacheConfig(**config).to_dict() for name, config in result.configs.items()
        },
        "computed_step_ms": _finite(computed),
        "reused_step_ms": _finite(reused),
        "cache_bytes": result.cache_bytes(),
        "runs": [_run_to_json(measured) for measured in result.measured],
    }


def _run_to_json(measured: MeasuredRun) -> dict[str, Any]:
    run = measured.run
    return {
        "prompt": run.prompt,
        "run": run.name,
        "steps": run.steps,
        "computed": run.computed,
        "transformer_seconds": run.transformer_seconds,
        "pipeline_seconds": run.pipeline_seconds,
        "speedup": measured.speedup,
        "pipeline_speedup": measured.pipeline_speedup,
        "psnr_db": _finite(measured.psnr),
        "ssim": measured.ssim,
        "step_seconds": run.step_seconds,
        "summary": run.summary.to_dict() if run.summary else None,
    }


def _versions() -> dict[str, str]:
    import diffusers

    return {
        "adacache_kernels": ak.__version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def _cells(measured: MeasuredRun) -> tuple[str, ...]:
    run = measured.run
    quality = _quality(measured.psnr, measured.ssim, run.name)
    return (
        run.name,
        str(run.steps),
        str(run.computed),
        f"{run.transformer_seconds:.2f}",
        f"{measured.speedup:.2f}x",
        f"{run.pipeline_seconds:.2f}",
        f"{measured.pipeline_speedup:.2f}x",
        *quality,
    )


def _mean_cells(group: Sequence[MeasuredRun]) -> tuple[str, ...]:
    runs = [measured.run for measured in group]
    transformer = statistics.mean(run.transformer_seconds for run in runs)
    pipeline = statistics.mean(run.pipeline_seconds for run in runs)
    mean, worst = statistics.mean(m.psnr for m in group), min(m.psnr for m in group)
    quality = _quality(worst, statistics.mean(m.ssim for m in group), runs[0].name)
    if math.isfinite(worst):
        quality = (f"{mean:.1f} ({worst:.1f})", quality[1])
    return (
        runs[0].name,
        f"{statistics.mean(run.steps for run in runs):.1f}",
        f"{statistics.mean(run.computed for run in runs):.1f}",
        f"{transformer:.2f}",
        f"{statistics.mean(m.speedup for m in group):.2f}x",
        f"{pipeline:.2f}",
        f"{statistics.mean(m.pipeline_speedup for m in group):.2f}x",
        *quality,
    )


def _quality(psnr: float, ssim: float, name: str) -> tuple[str, str]:
    if name == UNPATCHED:
        return "", ""
    return ("equal" if math.isinf(psnr) else f"{psnr:.1f}"), f"{ssim:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < LEFT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
