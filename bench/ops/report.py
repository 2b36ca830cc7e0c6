"""Write tables and a plot of the rounds that `bench/ops/run.py` has measured.

    python -m bench.ops.report bench/ops/results

`ops.csv` has a row for each provider of each point. Its ratios are medians over the rounds. In one
round, the providers run within milliseconds of each other; so on a shared machine ratios vary less
than times.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

FROM_MB = 16  # The aims are for these sizes; smaller tensors fit into caches.
COLOURS = {
    "ours": "tab:blue",
    "compile": "tab:orange",
    "eager": "tab:red",
    "eager in place": "tab:pink",
    "authors": "tab:green",
}


@dataclass(frozen=True)
class Timing:
    """The times of one provider at one point. Ratios above 1: this provider is the faster one.

    `of_roof` is the share of the roof's speed, as percentiles 20, 50 and 80.
    """

    op: str
    case: str
    provider: str
    dtype: str
    size_mb: float
    threads: int
    bytes: int
    calls: int
    ms_p20: float
    ms_p50: float
    ms_p80: float
    gb_per_s: float | None
    of_roof_p20: float | None
    of_roof: float | None
    of_roof_p80: float | None
    over_eager: float | None
    over_compile: float | None
    over_authors: float | None

    @property
    def point(self) -> tuple[str, str, str, float, int]:
        return self.op, self.case, self.dtype, self.size_mb, self.threads


@dataclass(frozen=True)
class Worst:
    """The lowest ratios of a case over its large sizes, or at its only size."""

    name: str
    dtype: str
    threads: int
    microseconds: float
    latency: bool
    of_roof: float | None
    over_compile: float | None
    over_eager: float | None
    over_authors: float | None


def timings(raw: Path) -> list[Timing]:
    """Return all rows of `raw.csv`, with the ratios to other providers of the same point."""
    with raw.open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_point: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        key = ("op", "case", "dtype", "size_mb", "threads")
        by_point[tuple(row[name] for name in key)].append(row)
    return [timing for group in by_point.values() for timing in _point(group)]


def _point(group: list[dict[str, str]]) -> Iterator[Timing]:
    times = {row["provider"]: np.array(row["ms"].split(), dtype=float) for row in group}
    roofs = [each for name, each in times.items() if name.startswith("roof")]
    roof = min(roofs, key=lambda each: float(np.median(each)), default=None)
    for row in group:
        ms = times[row["provider"]]
        low, middle, high = np.percentile(ms, (20, 50, 80))
        moved = int(row["bytes"])
        shares = (None,) * 3 if roof is None else np.percentile(roof / ms, (20, 50, 80)).tolist()

        def over(other: str, ms: np.ndarray = ms) -> float | None:
            return float(np.median(times[other] / ms)) if other in times else None

        yield Timing(
            op=row["op"],
            case=row["case"],
            provider=row["provider"],
            dtype=row["dtype"],
            size_mb=float(row["size_mb"]),
            threads=int(row["threads"]),
            bytes=moved,
            calls=int(row["calls"]),
            ms_p20=float(low),
            ms_p50=float(middle),
            ms_p80=float(high),
            gb_per_s=moved / float(middle) / 1e6 if moved else None,
            of_roof_p20=shares[0],
            of_roof=shares[1],
            of_roof_p80=shares[2],
            over_eager=over("eager"),
            over_compile=over("compile"),
            over_authors=over("authors"),
        )


def worst(found: Sequence[Timing]) -> list[Worst]:
    """Return one line for each case, dtype and number of threads."""
    groups: dict[tuple[str, str, int], list[Timing]] = defaultdict(list)
    for timing in found:
        if timing.provider == "ours":
            name = f"{timing.op}: {timing.case}"
            groups[name, timing.dtype, timing.threads].append(timing)
    lines = []
    for (name, dtype, threads), group in groups.items():
        large = [timing for timing in group if timing.size_mb >= FROM_MB] or group
        lines.append(
            Worst(
                name=name,
                dtype=dtype,
                threads=threads,
                microseconds=1e3 * min(timing.ms_p50 for timing in group),
                latency=not group[0].bytes,
                of_roof=_least([timing.of_roof for timing in large]),
                over_compile=_least([timing.over_compile for timing in large]),
                over_eager=_least([timing.over_eager for timing in large]),
                over_authors=_least([timing.over_authors for timing in large]),
            )
        )
    return lines


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def markdown(found: Sequence[Timing], environment: dict[str, str]) -> Iterator[str]:
    """Yield the lines of `table.md`: environment, lowest ratios, latencies, every point."""
    yield from (f"- {name}: {value}" for name, value in environment.items())
    lines = worst(found)
    sizes = sorted({timing.size_mb for timing in found if timing.size_mb >= FROM_MB})
    measured = ", ".join(f"{size:g}" for size in sizes) or "the sizes measured, all smaller than 16"
    yield ""
    yield f"The least over {measured} MiB a tensor: share of the roof, speed over the others."
    yield ""
    yield "| op | dtype | threads | of roof | over compile | over eager | over authors |"
    yield "|---|---|---|---|---|---|---|"
    for line in lines:
        if not line.latency:
            yield (
                f"| {line.name} | {line.dtype} | {line.threads} | {_number(line.of_roof)} "
                f"| {_times(line.over_compile)} | {_times(line.over_eager)} "
                f"| {_times(line.over_authors)} |"
            )
    yield ""
    yield "Calls that move next to nothing:"
    yield ""
    yield "| op | dtype | threads | us | over compile | over eager |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        if line.latency:
            yield (
                f"| {line.name} | {line.dtype} | {line.threads} | {line.microseconds:.1f} "
                f"| {_times(line.over_compile)} | {_times(line.over_eager)} |"
            )
    yield ""
    yield "Every point: median ms, percentiles 20 and 80 of the share of the roof in brackets."
    yield ""
    yield from _points(found)


def _points(found: Sequence[Timing]) -> Iterator[str]:
    by_point: dict[tuple[str, str, str, float, int], dict[str, Timing]] = defaultdict(dict)
    for timing in found:
        by_point[timing.point][timing.provider] = timing
    names = ("eager", "eager in place", "compile", "authors", "roof", "roof streaming")
    yield f"| op | dtype | threads | MiB | ours | of roof | {' | '.join(names)} |"
    yield "|---" * (6 + len(names)) + "|"
    for (op, case, dtype, size, threads), providers in by_point.items():
        ours = providers["ours"]
        share = ""
        if ours.of_roof is not None:
            share = f"{ours.of_roof:.2f} ({ours.of_roof_p20:.2f} to {ours.of_roof_p80:.2f})"
        others = [f"{providers[name].ms_p50:.4g}" if name in providers else "" for name in names]
        yield (
            f"| {op}: {case} | {dtype} | {threads} | {size:g} | {ours.ms_p50:.4g} | {share} "
            f"| {' | '.join(others)} |"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}x"


def plot(found: Sequence[Timing], path: Path) -> None:
    """Plot the share of the roof against the size.

    A column is a case, a row is a dtype and a number of threads.
    """
    from matplotlib.figure import Figure

    shown = [timing for timing in found if timing.provider in COLOURS and timing.of_roof]
    columns = list(dict.fromkeys((timing.op, timing.case) for timing in shown))
    rows = list(dict.fromkeys((timing.dtype, timing.threads) for timing in shown))
    figure = Figure(figsize=(2.1 * len(columns), 1.9 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    for across, column in zip(grid.T, columns, strict=True):
        across[0].set_title("\n".join(column), fontsize=8)
        across[-1].set_xlabel("MiB a tensor", fontsize=8)
        for axes, row in zip(across, rows, strict=True):
            here = [t for t in shown if (t.op, t.case) == column and (t.dtype, t.threads) == row]
            _panel(axes, here)
    for axes, (dtype, threads) in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{dtype}, {threads} thread{'s' * (threads > 1)}\nof roof", fontsize=8)
    handles = {}
    for axes in grid.flat:
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)


def _panel(axes, shown: Sequence[Timing]) -> None:
    for name, colour in COLOURS.items():
        line = sorted((t.size_mb, t.of_roof) for t in shown if t.provider == name)
        if line:
            width = 2 if name == "ours" else 1
            axes.plot(*zip(*line, strict=True), ".-", color=colour, linewidth=width, label=name)
    axes.axhline(1, color="black", linewidth=0.5)
    axes.axhline(0.9, color="black", linewidth=0.5, linestyle=":")
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.4)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def write(folder: Path) -> None:
    """Write `ops.csv`, `table.md` and `ops.png` from `raw.csv` and `environment.json`."""
    found = timings(folder / "raw.csv")
    environment = json.loads((folder / "environment.json").read_text())
    with (folder / "ops.csv").open("w", newline="") as file:
        names = [field.name for field in fields(Timing)]
        writer = csv.DictWriter(file, names + list(environment))
        writer.writeheader()
        for timing in found:
            writer.writerow({k: _rounded(v) for k, v in asdict(timing).items()} | environment)
    (folder / "table.md").write_text("\n".join([*markdown(found, environment), ""]))
    plot(found, folder / "ops.png")


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write(folder)
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    main()
