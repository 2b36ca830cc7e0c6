"""The paper's figures, of any pipeline: distances, computed steps, quality against latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contact_sheet import contact_sheet
from .method_spec import FULL
from .results import Row
from .tables import Line

MARKERS = "osD^v"
"""With ten colours, no two of fifty curves look alike."""


def write(rows: Sequence[Row], found: Sequence[Line], folder: Path) -> None:
    """`distances.png`, `computed_steps.png`, `frontier.png` and `contact_sheet.png`."""
    distances(rows, folder / "distances.png")
    computed_steps(rows, folder / "computed_steps.png")
    frontier(found, folder / "frontier.png")
    contact_sheet(rows, folder)


def distances(rows: Sequence[Row], path: Path) -> None:
    """Distance against step, one line a video, one panel a method that measures distances."""
    measured = [row for row in rows if any(d is not None for d in row.distances)]
    names = list(dict.fromkeys(row.method for row in measured))
    if not names:
        return
    figure = _figure(5.0 * min(3, len(names)), 3.4 * -(-len(names) // 3))
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 3), min(3, len(names)), place)
        for row in (row for row in measured if row.method == name):
            axes.plot(row.computed_steps, row.distances, marker=".", linewidth=0.8)
        axes.set(title=name, xlabel="step", ylabel="distance", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def computed_steps(rows: Sequence[Row], path: Path) -> None:
    """How many videos computed how many steps, one panel a method that differs between videos."""
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


def frontier(found: Sequence[Line], path: Path) -> None:
    """PSNR against the transformer's seconds as a part of the full run's; one curve a method."""
    shown = [line for line in found if line.method != FULL]
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
        xlabel="seconds in the transformer, of those of the full run (median)",
        ylabel="PSNR against the full run, dB (mean)",
        title=f"{shown[0].videos} videos",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
