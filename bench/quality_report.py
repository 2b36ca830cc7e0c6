"""Tables and plot of `quality.py`, from its rows.

python bench/quality_report.py bench/results/quality
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from quality_methods import ADAPTIVE, EVEN, EVEN_REUSE, FEWER, FULL, OWN, STATIC

Rows = list[dict[str, str]]
Case = tuple[str, str]
# PSNR of videos that are equal to the last bit of float32, for means.
EQUAL = 100.0


@dataclass(frozen=True)
class Line:
    """One method at one budget, over all videos.

    `psnr_of_mse` is that of the mean squared error; `own` the mean against the full run of the
    method's own scheduler; `speedup` the median over the videos of full / method seconds in the
    transformer, with `slowest` and `fastest` the quartiles.
    """

    steps: int
    budget: int
    method: str
    scheduler: str
    videos: int
    computed: float
    computed_least: int
    computed_most: int
    psnr: float
    psnr_of_mse: float
    psnr_worst: float
    ssim: float
    own: float
    speedup: float
    slowest: float
    fastest: float
    cache_mib: float


@dataclass(frozen=True)
class Paired:
    """A schedule against evenly spread steps at the same mean number, video by video."""

    steps: int
    budget: int
    method: str
    computed: float
    gain: float
    standard_error: float
    worst: float
    even_worst: float
    oracle_gain: float | None


def read(raw: Path) -> Rows:
    """Rows of a results file; none if there is no file yet."""
    if not raw.exists():
        return []
    with raw.open(newline="") as file:
        return list(csv.DictReader(file))


def lines(rows: Rows) -> list[Line]:
    """One line per method and budget, in the order of the first video."""
    by_key: dict[str, Rows] = defaultdict(list)
    for row in rows:
        by_key[row["key"]].append(row)
    found = [_line(group) for group in by_key.values()]
    return sorted(found, key=lambda line: (line.steps, -line.budget, line.scheduler != OWN))


def _line(group: Rows) -> Line:
    first = group[0]
    psnrs = [_psnr(row["psnr"]) for row in group]
    computed = [int(row["computed"]) for row in group]
    ratios = [float(row["full_seconds"]) / float(row["seconds"]) for row in group]
    return Line(
        steps=int(first["steps"]),
        budget=int(first["budget"]),
        method=first["name"],
        scheduler=first["solver"],
        videos=len(group),
        computed=statistics.mean(computed),
        computed_least=min(computed),
        computed_most=max(computed),
        psnr=statistics.mean(psnrs),
        psnr_of_mse=psnr_of_mean_error(psnrs),
        psnr_worst=min(psnrs),
        ssim=statistics.mean(float(row["ssim"]) for row in group),
        own=statistics.mean(_psnr(row["psnr_own"]) for row in group),
        speedup=statistics.median(ratios),
        slowest=float(np.percentile(ratios, 25)),
        fastest=float(np.percentile(ratios, 75)),
        cache_mib=max(int(row["cache_bytes"]) for row in group) / 2**20,
    )


def psnr_of_mean_error(psnrs: Sequence[float]) -> float:
    """PSNR of the mean of the squared errors, which the worst videos dominate."""
    return -10 * math.log10(statistics.mean(10 ** (-psnr / 10) for psnr in psnrs))


def paired(rows: Rows) -> list[Paired]:
    """Profiles against the same forecast at evenly spread steps."""
    found = []
    for (steps, budget, name), group in _groups(rows).items():
        if name in (FULL, FEWER, EVEN) or EVEN not in _names(rows, steps):
            continue
        found.append(_paired(rows, steps, budget, name, group))
    return sorted(found, key=lambda p: (p.steps, -p.budget))


def _paired(rows: Rows, steps: str, budget: str, name: str, group: Rows) -> Paired:
    grid = even_grid(rows, steps)
    mean = statistics.mean(int(row["computed"]) for row in group)
    even = [_between(grid[_case(row)], mean) for row in group]
    gains = [_psnr(row["psnr"]) - base for row, base in zip(group, even, strict=True)]
    return Paired(
        steps=int(steps),
        budget=int(budget),
        method=name,
        computed=mean,
        gain=statistics.mean(gains),
        standard_error=statistics.stdev(gains) / math.sqrt(len(gains)) if gains[1:] else math.nan,
        worst=min(_psnr(row["psnr"]) for row in group),
        even_worst=min(even),
        oracle_gain=oracle_gain(grid, mean),
    )


def even_grid(rows: Rows, steps: str) -> dict[Case, dict[int, float]]:
    """PSNR of evenly spread steps by video and number of computed steps."""
    grid: dict[Case, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["name"] == EVEN and row["solver"] == OWN and row["steps"] == steps:
            grid[_case(row)][int(row["computed"])] = _psnr(row["psnr"])
    return grid


def oracle_gain(grid: dict[Case, dict[int, float]], mean: float) -> float | None:
    """Gain in mean PSNR of whoever knew the best number of computed steps for each video.

    Even schedules, their numbers chosen from the grid by video, `mean` on average; against all
    videos at that mean. None where the grid is too small to choose from.
    """
    counts = sorted(set.intersection(*(set(found) for found in grid.values())))
    if len(counts) < 6 or not counts[0] < mean < counts[-1]:
        return None
    even = statistics.mean(_between(found, mean) for found in grid.values())
    points = [_chosen(grid, price) for price in (0.0, *np.geomspace(1e-2, 20, 400))]
    points.sort()
    return float(np.interp(mean, [n for n, _ in points], [p for _, p in points])) - even


def _chosen(grid: dict[Case, dict[int, float]], price: float) -> tuple[float, float]:
    """Mean number and mean PSNR if every video takes what is best at a price in dB per step."""
    best = [max(found, key=lambda n, f=found: f[n] - price * n) for found in grid.values()]
    psnrs = [found[n] for found, n in zip(grid.values(), best, strict=True)]
    return statistics.mean(best), statistics.mean(psnrs)


def _between(found: dict[int, float], count: float) -> float:
    counts = sorted(found)
    return float(np.interp(count, counts, [found[n] for n in counts]))


def markdown(found: Sequence[Line]) -> Iterator[str]:
    """The main table, one part a budget."""
    yield (
        "| steps | method | scheduler | computed | PSNR mean / of MSE / worst | SSIM "
        "| against its own full run | speedup (quartiles) | cache MiB |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in found:
        computed = f"{line.computed:.1f}"
        if line.computed_least != line.computed_most:
            computed += f" ({line.computed_least} to {line.computed_most})"
        equal = line.method == FULL and line.scheduler == OWN
        quality = f"{line.psnr:.1f} / {line.psnr_of_mse:.1f} / {line.psnr_worst:.1f}"
        own = "" if line.method == FULL else f"{line.own:.1f}"
        yield (
            f"| {line.steps} | {line.method} | {line.scheduler} | {computed} "
            f"| {'equal' if equal else quality} | {line.ssim:.3f} | {own} | {line.speedup:.2f}x "
            f"({line.slowest:.2f} to {line.fastest:.2f}) | {line.cache_mib:.2f} |"
        )


def paired_markdown(found: Sequence[Paired]) -> Iterator[str]:
    """The table of schedules against evenly spread steps."""
    yield (
        "| steps | budget | method | computed | gain over even, dB | worst video (even) | oracle "
        "gain |"
    )
    yield "|---|---|---|---|---|---|---|"
    for pair in found:
        oracle = "" if pair.oracle_gain is None else f"{pair.oracle_gain:.2f}"
        yield (
            f"| {pair.steps} | {pair.budget} | {pair.method} | {pair.computed:.1f} "
            f"| {pair.gain:+.2f} +- {pair.standard_error:.2f} "
            f"| {pair.worst:.1f} ({pair.even_worst:.1f}) | {oracle} |"
        )


def plot(found: Sequence[Line], path: Path) -> None:
    """PSNR against computed steps, one curve a method."""
    from matplotlib.figure import Figure

    all_steps = sorted({line.steps for line in found})
    figure = Figure(figsize=(6.4 * len(all_steps), 4.8), layout="constrained")
    for place, steps in enumerate(all_steps, start=1):
        axes = figure.add_subplot(1, len(all_steps), place)
        shown = [line for line in found if line.steps == steps and line.method != FULL]
        curves = [(FEWER, solver) for solver in dict.fromkeys(line.scheduler for line in shown)]
        curves += [(name, OWN) for name in (EVEN_REUSE, EVEN, STATIC, ADAPTIVE)]
        for name, solver in curves:
            points = sorted(
                (line.computed, line.psnr)
                for line in shown
                if (line.method, line.scheduler) == (name, solver)
            )
            label = f"{name}, {solver}" if name == FEWER else name
            style = "--" if name == FEWER else "-"
            if points:
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=label)
        for line in shown:
            if line.method.startswith("preset"):
                axes.plot(line.computed, line.psnr, "kx")
                axes.annotate(line.method, (line.computed, line.psnr), fontsize=7)
        axes.set(
            xlabel=f"computed steps of {steps}",
            ylabel=f"PSNR against {OWN} at {steps} steps, dB, mean",
            title=f"{shown[0].videos} videos, {steps} steps",
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def write(raw: Path, folder: Path) -> None:
    """`table.csv`, `paired.csv`, `table.md` and `quality.png` in `folder`."""
    rows = read(raw)
    found, pairs = lines(rows), paired(rows)
    _write_csv(folder / "table.csv", [f.name for f in fields(Line)], map(asdict, found))
    _write_csv(folder / "paired.csv", [f.name for f in fields(Paired)], map(asdict, pairs))
    text = [*markdown(found), "", *paired_markdown(pairs), ""]
    (folder / "table.md").write_text("\n".join(text))
    plot(found, folder / "quality.png")


def _write_csv(path: Path, names: list[str], rows: Any) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(rounded)


def _groups(rows: Rows) -> dict[tuple[str, str, str], Rows]:
    own = sorted(
        (row for row in rows if row["solver"] == OWN),
        key=lambda row: (row["steps"], row["budget"], row["name"]),
    )
    grouped = itertools.groupby(own, key=lambda row: (row["steps"], row["budget"], row["name"]))
    return {key: list(group) for key, group in grouped}


def _names(rows: Rows, steps: str) -> set[str]:
    return {row["name"] for row in rows if row["steps"] == steps}


def _case(row: dict[str, str]) -> Case:
    return row["prompt"], row["seed"]


def _psnr(text: str) -> float:
    return min(EQUAL, float(text))


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables and plot of quality.py's rows.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write(folder / "raw.csv", folder)
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    main()
