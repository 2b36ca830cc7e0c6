"""The paper's figures for any pipeline: distances, computed steps, quality against latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contact_sheet import save_contact_sheet
from .method_spec import FULL
from .results import Row
from .table_lines import Line

MARKERS = "osD^v"
"""Five markers: with ten colours, they make fifty curves distinct."""


def save_plots(rows: Sequence[Row], lines: Sequence[Line], folder: Path) -> None:
    """Save `distances.png`, `computed_steps.png`, `frontier.png` and `contact_sheet.png`.

    A figure without any data is not written.
    """
    save_distances(rows, folder / "distances.png")
    save_computed_steps(rows, folder / "computed_steps.png")
    save_frontier(lines, folder / "frontier.png")
    save_contact_sheet(rows, folder)


def save_distances(rows: Sequence[Row], path: Path) -> None:
    """Plot distance against step: a curve for each video, a panel for each method."""
    measured = [row for row in rows if any(d is not None for d in row.distances)]
    names = list(dict.fromkeys(row.method for row in measured))
    if not names:
        return
    figure = _figure(5.0 * min(3, len(names)), 3.4 * -(-len(names) // 3))
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 3), min(3, len(names)), number)
        for row in (row for row in measured if row.method == name):
            axes.plot(row.computed_steps, row.distances, marker=".", linewidth=0.8)
        axes.set(title=name, xlabel="step", ylabel="distance", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def save_computed_steps(rows: Sequence[Row], path: Path) -> None:
    """Plot a histogram of the computed steps of each method that differs between videos."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        if row.computed is not None:
            groups.setdefault(row.method, []).append(row.computed)
    groups = {name: counts for name, counts in groups.items() if len(set(counts)) > 1}
    if not groups:
        return
    figure = _figure(6.4, 0.4 + 0.9 * len(groups))
    panels = figure.subplots(len(groups), sharex=True, sharey=True, squeeze=False)[:, 0]
    last = max(max(counts) for counts in groups.values())
    edges = [step - 0.5 for step in range(1, last + 2)]
    for axes, (name, counts) in zip(panels, groups.items(), strict=True):
        axes.hist(counts, bins=edges)
        axes.set_title(name, fontsize=8, loc="left")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("computed steps")
    figure.supylabel("videos", fontsize=9)
    figure.savefig(path, dpi=110)


def save_frontier(lines: Sequence[Line], path: Path) -> None:
    """Plot PSNR against the transformer's seconds, relative to the full run."""
    shown = [line for line in lines if line.method != FULL]
    if not shown:
        return
    figure = _figure(9.6, 5.4)
    axes = figure.add_subplot()
    for number, curve in enumerate(dict.fromkeys(line.curve for line in shown)):
        points = sorted((1 / line.speedup, line.psnr) for line in shown if line.curve == curve)
        axes.plot(
            *zip(*points, strict=True),
            linestyle="--" if curve.startswith("fewer") else "-",
            color=f"C{number % 10}",
            marker=MARKERS[number // 10 % len(MARKERS)],
            markersize=5,
            label=curve,
        )
    axes.set(
        xlabel="seconds in the transformer, as a part of the full run's (median)",
        ylabel="PSNR against the full run, dB (mean)",
        title=f"{shown[0].videos} videos",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
