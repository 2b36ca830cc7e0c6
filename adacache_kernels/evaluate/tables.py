"""One line a method: quality, work, time and memory over all videos."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from .method_spec import FULL
from .results import Failure, Row

# PSNR of videos that are equal to the last bit of float32, for means.
EQUAL = 100.0
IDLE = "computes everything: as much work as the full run"
LEGEND = (
    "Reads: operations in the transformer for whose result the host waits where the tensor is on a "
    "GPU, a step, more than in the full run; on a CPU, tensors that would be on the host anyway "
    "count as well. Held: bytes of tensors that live when a forward begins, the most in a "
    "generation, more than in the full run. Both, and the work, which is operations as a share of "
    "the full run's, are counted on the first video, in a generation that is not timed, in the "
    "same way for every method; cache MiB and waits are what a method itself tells."
)


@dataclass(frozen=True)
class Line:
    """One method over all videos.

    Args:
        method, curve: see `Method`.
        videos: how many.
        computed: mean of computed steps, with the least and the most; None where it is not told.
        psnr, psnr_of_mse, psnr_worst: mean, that of the mean squared error, and the worst video.
        ssim, lpips: means; lpips None where it was not measured.
        teraflops: in the transformer, of the first video; None where it was not counted.
        seconds: median in the transformer.
        speedup, slowest, fastest: of the transformer against the full run of the same video:
            median and quartiles.
        pipeline_speedup: of the whole pipeline, median.
        peak_gib: most bytes that torch had allocated; None without CUDA.
        cache_mib: most bytes of the cache; None where it is not told.
        waits: of the host a step, mean; None where it is not told.
        scores: VBench, mean over its dimensions; None where it was not measured.
        work: operations of the first video, as a share of the full run's; None likewise.
        reads: of the host a step, more than in the full run, of the first video; None likewise.
        held_mib: bytes that lived from step to step, more than in the full run's; None likewise.
        notes: what was done to the pipeline so that the method runs on it, and what did not work.
        gain, gain_error: PSNR over that of the method compared against, mean of the differences of
            the same videos, and its standard error; None without one.
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


def lines(
    rows: Sequence[Row], scores: dict[str, float] | None = None, against: str | None = None
) -> list[Line]:
    """A line for each method, in the order of the first video; `against` names one of them."""
    names = list(dict.fromkeys(row.method for row in rows))
    groups = [[row for row in rows if row.method == name] for name in names]
    full = _counted([row for row in rows if row.method == FULL])
    baseline = {(row.prompt, row.seed): _psnr(row) for row in rows if row.method == against}
    found = []
    for group in groups:
        gain, error = _gain(group, baseline)
        line = _line(group, (scores or {}).get(group[0].method), full)
        found.append(replace(line, gain=gain, gain_error=error))
    return found


def _psnr(row: Row) -> float:
    return EQUAL if row.psnr is None else row.psnr


def _gain(
    group: Sequence[Row], baseline: Mapping[tuple[str, int], float]
) -> tuple[float | None, float | None]:
    """Mean and standard error over the videos that both have made."""
    differences = [
        _psnr(row) - baseline[row.prompt, row.seed]
        for row in group
        if (row.prompt, row.seed) in baseline
    ]
    if not differences:
        return None, None
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    return statistics.mean(differences), spread / math.sqrt(len(differences))


def _counted(group: Sequence[Row]) -> Row | None:
    """The row of a method whose video was counted."""
    return next((row for row in group if row.flops is not None), None)


def psnr_of_mean_error(psnrs: Sequence[float]) -> float:
    """PSNR of the mean of the squared errors, which the worst videos dominate."""
    return -10 * math.log10(statistics.mean(10 ** (-psnr / 10) for psnr in psnrs))


def _line(group: Sequence[Row], scores: float | None, full: Row | None) -> Line:
    work, reads, held_mib = _costs(_counted(group), full)
    # A note may come with the first video only.
    notes = tuple(dict.fromkeys(note for row in group for note in row.notes))
    if work is not None and work > 1 - 1e-9 and group[0].method != FULL:
        notes = (*notes, IDLE)
    psnrs = [_psnr(row) for row in group]
    computed = [row.computed for row in group if row.computed is not None]
    ratios = [row.full_seconds / row.seconds for row in group]
    lpips = [row.lpips for row in group if row.lpips is not None]
    flops = [row.flops for row in group if row.flops is not None]
    peaks = [row.peak_bytes for row in group if row.peak_bytes is not None]
    caches = [row.cache_bytes for row in group if row.cache_bytes is not None]
    waits = [row.waits / row.scheduled for row in group if row.waits is not None]
    return Line(
        method=group[0].method,
        curve=group[0].curve,
        videos=len(group),
        computed=statistics.mean(computed) if computed else None,
        computed_least=min(computed, default=None),
        computed_most=max(computed, default=None),
        psnr=statistics.mean(psnrs),
        psnr_of_mse=psnr_of_mean_error(psnrs),
        psnr_worst=min(psnrs),
        ssim=statistics.mean(row.ssim for row in group),
        lpips=statistics.mean(lpips) if lpips else None,
        teraflops=flops[0] / 1e12 if flops else None,
        seconds=statistics.median(row.seconds for row in group),
        speedup=statistics.median(ratios),
        slowest=float(np.percentile(ratios, 25)),
        fastest=float(np.percentile(ratios, 75)),
        pipeline_speedup=statistics.median(
            row.full_pipeline_seconds / row.pipeline_seconds for row in group
        ),
        peak_gib=max(peaks) / 2**30 if peaks else None,
        cache_mib=max(caches) / 2**20 if caches else None,
        waits=statistics.mean(waits) if waits else None,
        scores=scores,
        work=work,
        reads=reads,
        held_mib=held_mib,
        notes=notes,
    )


def _costs(row: Row | None, full: Row | None) -> tuple[float | None, float | None, float | None]:
    """Work, reads a step and MiB held of a counted row, against those of the full run."""
    if row is None or full is None or not full.flops or row.flops is None:
        return None, None, None
    work = row.flops / full.flops
    if None in (row.reads, row.held_bytes, full.reads, full.held_bytes):
        return work, None, None
    assert row.reads is not None and full.reads is not None
    assert row.held_bytes is not None and full.held_bytes is not None
    reads = row.reads / row.scheduled - full.reads / full.scheduled
    return work, reads, (row.held_bytes - full.held_bytes) / 2**20


def markdown(found: Sequence[Line], failures: Sequence[Failure] = ()) -> Iterator[str]:
    """The table, the columns that were measured; methods that failed come last."""
    marks = {note: number for number, note in enumerate(_notes(found, failures), 1)}

    def marked(each: Line | Failure) -> str:
        return " ".join([each.method, *(f"[{marks[note]}]" for note in each.notes)])

    columns: list[tuple[str, Callable[[Line], str]]] = [
        ("method", marked),
        ("computed steps", _computed),
        ("work", lambda line: _number(line.work, ".3f")),
        ("PSNR mean / of MSE / worst", _quality),
        ("gain, dB", _gained),
        ("SSIM", lambda line: f"{line.ssim:.3f}"),
        ("LPIPS", lambda line: _number(line.lpips, ".4f")),
        ("VBench", lambda line: _number(line.scores, ".3f")),
        ("TFLOPs", lambda line: _number(line.teraflops, ".4g")),
        ("transformer s", lambda line: f"{line.seconds:.3g}"),
        ("speedup (quartiles)", _speedup),
        ("pipeline", lambda line: f"{line.pipeline_speedup:.2f}x"),
        ("peak GiB", lambda line: _number(line.peak_gib, ".2f")),
        ("cache MiB", lambda line: _number(line.cache_mib, ".2f")),
        ("held MiB", lambda line: _number(line.held_mib, ".2f")),
        ("waits a step", lambda line: _number(line.waits, ".2g")),
        ("reads a step", lambda line: _number(line.reads, ".2g")),
    ]
    shown = [(name, of) for name, of in columns if any(of(line) for line in found)]
    yield "| " + " | ".join(name for name, _ in shown) + " |"
    yield "|" + "---|" * len(shown)
    for line in found:
        yield "| " + " | ".join(of(line) for _, of in shown) + " |"
    for failure in failures:
        error = f"{failure.error} (after {failure.videos} videos)".replace("|", "\\|")
        yield f"| {marked(failure)} | {error} |" + " |" * (len(shown) - 2)


def legend(found: Sequence[Line], failures: Sequence[Failure] = ()) -> Iterator[str]:
    """What stands below the table: the notes, and how was counted."""
    for number, note in enumerate(_notes(found, failures), 1):
        yield f"[{number}] {note}  "
    if any(line.held_mib is not None for line in found):
        yield ""
        yield LEGEND


def _notes(found: Sequence[Line], failures: Sequence[Failure]) -> list[str]:
    of_all = [each.notes for each in found] + [each.notes for each in failures]
    return list(dict.fromkeys(note for notes in of_all for note in notes))


def write(found: Sequence[Line], folder: Path, failures: Sequence[Failure] = ()) -> None:
    """`table.csv`, `table.md` and `table.json` in `folder`."""
    failed = [asdict(failure) for failure in failures]
    with (folder / "table.csv").open("w", newline="") as file:
        names = [f.name for f in fields(Line)] + ["error"] * bool(failed)
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(map(_rounded, found))
        writer.writerows(failed)
    lines_and_failures = [*map(_rounded, found), *failed]
    (folder / "table.json").write_text(json.dumps(lines_and_failures, indent=1))
    below = list(legend(found, failures))
    text = [*markdown(found, failures), *([""] if below else []), *below, ""]
    (folder / "table.md").write_text("\n".join(text))


def _rounded(line: Line) -> dict[str, object]:
    values = asdict(line)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _computed(line: Line) -> str:
    if line.computed is None:
        return ""
    spread = line.computed_least != line.computed_most
    extent = f" ({line.computed_least} to {line.computed_most})" if spread else ""
    return f"{line.computed:.1f}{extent}"


def _quality(line: Line) -> str:
    if line.psnr_worst == EQUAL:
        return "equal"
    return f"{line.psnr:.1f} / {line.psnr_of_mse:.1f} / {line.psnr_worst:.1f}"


def _gained(line: Line) -> str:
    if line.gain is None or line.gain_error is None or line.method == FULL:
        return ""
    return f"{line.gain:+.2f} +- {line.gain_error:.2f}"


def _speedup(line: Line) -> str:
    return f"{line.speedup:.2f}x ({line.slowest:.2f} to {line.fastest:.2f})"
