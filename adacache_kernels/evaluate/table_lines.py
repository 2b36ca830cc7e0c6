"""One line for each method: quality, work, time and memory over all videos."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..measure.psnr_ssim import EQUAL_PSNR
from .method_spec import FULL
from .results import Row

IDLE = "computes everything: as much work as the full run"


@dataclass(frozen=True)
class Line:
    """One method over all videos.

    A value is None if the method does not report it, or if it was not measured. "First video" marks
    values that are counted for the first video only.

    Args:
        method, curve: see `Method`.
        videos: number of videos.
        computed, computed_least, computed_most: computed steps: mean, least and most.
        psnr, psnr_of_mse, psnr_worst: in dB: mean, that of the mean squared error, and the worst
            video's.
        ssim, lpips: means.
        teraflops: operations in the transformer, in 10^12. First video.
        seconds: in the transformer, median.
        speedup, slowest, fastest: of the transformer, against the full run of the same video:
            median and quartiles.
        pipeline_speedup: of the whole pipeline, median.
        peak_gib: most GiB that torch had allocated; None without CUDA.
        cache_mib: most MiB of the cache.
        waits: host waits a step, mean.
        scores: VBench, mean over its dimensions.
        work: operations, as a share of the full run's. First video.
        reads: host reads a step, minus the full run's. First video.
        held_mib: MiB that live between forward calls, minus the full run's. First video.
        notes: changes to the pipeline that the method needed, and workarounds without effect.
        gain, gain_error: PSNR minus that of the method compared against, in dB: mean over the
            videos of both, and its standard error.
    """

    method: str
    curve: str
    videos: int
    computed: float | None
    computed_least: int | None
    computed_most: int | None
    psnr: float
    psnr_of_mse: float
    psnr_worst: float
    ssim: float
    lpips: float | None
    teraflops: float | None
    seconds: float
    speedup: float
    slowest: float
    fastest: float
    pipeline_speedup: float
    peak_gib: float | None
    cache_mib: float | None
    waits: float | None
    scores: float | None = None
    work: float | None = None
    reads: float | None = None
    held_mib: float | None = None
    notes: tuple[str, ...] = ()
    gain: float | None = None
    gain_error: float | None = None


def table_lines(
    rows: Sequence[Row], scores: Mapping[str, float] | None = None, against: str | None = None
) -> list[Line]:
    """Return a line for each method, in the order of their first rows.

    Args:
        rows: of any methods and videos.
        scores: VBench's, by method.
        against: the method that the gain is measured against; None for no gain.
    """
    names = list(dict.fromkeys(row.method for row in rows))
    full = _counted_row([row for row in rows if row.method == FULL])
    baseline = {(row.prompt, row.seed): _psnr(row) for row in rows if row.method == against}
    lines = []
    for name in names:
        group = [row for row in rows if row.method == name]
        gain, error = _gain(group, baseline)
        line = _line(group, (scores or {}).get(name), full)
        lines.append(replace(line, gain=gain, gain_error=error))
    return lines


def _line(group: Sequence[Row], scores: float | None, full: Row | None) -> Line:
    work, reads, held_mib = _costs(_counted_row(group), full)
    # A note may be in the first video's row only.
    notes = tuple(dict.fromkeys(note for row in group for note in row.notes))
    if work is not None and work > 1 - 1e-9 and group[0].method != FULL:
        notes = (*notes, IDLE)
    psnrs = [_psnr(row) for row in group]
    speedups = [row.full_seconds / row.seconds for row in group]
    pipeline_speedups = [row.full_pipeline_seconds / row.pipeline_seconds for row in group]
    computed = _values(group, "computed")
    lpips = _values(group, "lpips")
    flops = _values(group, "flops")
    peaks = _values(group, "peak_bytes")
    caches = _values(group, "cache_bytes")
    waits = [row.waits / row.scheduled for row in group if row.waits is not None]
    return Line(
        method=group[0].method,
        curve=group[0].curve,
        videos=len(group),
        computed=_mean(computed),
        computed_least=min(computed, default=None),
        computed_most=max(computed, default=None),
        psnr=statistics.mean(psnrs),
        psnr_of_mse=psnr_of_mean_error(psnrs),
        psnr_worst=min(psnrs),
        ssim=statistics.mean(row.ssim for row in group),
        lpips=_mean(lpips),
        teraflops=flops[0] / 1e12 if flops else None,
        seconds=statistics.median(row.seconds for row in group),
        speedup=statistics.median(speedups),
        slowest=float(np.percentile(speedups, 25)),
        fastest=float(np.percentile(speedups, 75)),
        pipeline_speedup=statistics.median(pipeline_speedups),
        peak_gib=max(peaks) / 2**30 if peaks else None,
        cache_mib=max(caches) / 2**20 if caches else None,
        waits=_mean(waits),
        scores=scores,
        work=work,
        reads=reads,
        held_mib=held_mib,
        notes=notes,
    )


def psnr_of_mean_error(psnrs: Sequence[float]) -> float:
    """Return the PSNR in dB of the mean squared error, which the worst videos dominate."""
    return -10 * math.log10(statistics.mean(10 ** (-psnr / 10) for psnr in psnrs))


def _gain(
    group: Sequence[Row], baseline: Mapping[tuple[str, int], float]
) -> tuple[float | None, float | None]:
    """Return mean and standard error over the videos that both methods have."""
    differences = [
        _psnr(row) - baseline[row.prompt, row.seed]
        for row in group
        if (row.prompt, row.seed) in baseline
    ]
    if not differences:
        return None, None
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    return statistics.mean(differences), spread / math.sqrt(len(differences))


def _costs(row: Row | None, full: Row | None) -> tuple[float | None, float | None, float | None]:
    """Return work, host reads a step and MiB held of a counted row, against the full run."""
    if row is None or full is None or not full.flops or row.flops is None:
        return None, None, None
    work = row.flops / full.flops
    if row.reads is None or full.reads is None or row.held_bytes is None or full.held_bytes is None:
        return work, None, None
    reads = row.reads / row.scheduled - full.reads / full.scheduled
    return work, reads, (row.held_bytes - full.held_bytes) / 2**20


def _counted_row(group: Sequence[Row]) -> Row | None:
    """Return the row whose costs were counted."""
    return next((row for row in group if row.flops is not None), None)


def _psnr(row: Row) -> float:
    return EQUAL_PSNR if row.psnr is None else row.psnr


def _values(group: Sequence[Row], name: str) -> list[Any]:
    values = [getattr(row, name) for row in group]
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None
