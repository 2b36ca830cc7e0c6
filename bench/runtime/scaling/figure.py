"""The figure of speedup against ranks: measured on a CPU, and computed for GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.runtime.scaling import predict, report

GPU = "H100"
COLOURS = {
    "unpatched": "black",
    "PAB": "tab:orange",
    "static, 50 %": "tab:blue",
    "static, 30 %": "tab:green",
    "measured": "tab:red",
    "measured, motion": "tab:purple",
}


def draw(times: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the figure: the first panel is measured, the others are computed."""
    from matplotlib.figure import Figure

    models = predict.models()
    figure = Figure(figsize=(3.4 * (1 + len(models)), 3.8), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(models))
    ranks = sorted({each["ranks"] for each in times})
    for way, colour in COLOURS.items():
        ratios = [report.ratios(times, number, way, 1) for number in ranks]
        middle = np.array([np.median(each) for each in ratios])
        ends = np.array([[min(each), max(each)] for each in ratios]).T
        first.errorbar(ranks, middle, abs(ends - middle), fmt=".-", color=colour, capsize=2)
    first.set_title("MEASURED: CPU, 2 cores, gloo\nsmall Wan model", fontsize=9)
    first.set_xlabel("ranks", fontsize=8)
    first.set_facecolor("#f2f7ff")
    for axes, model in zip(others, models, strict=True):
        for way in predict.WAYS:
            speedups = predict.speedups(model, GPU, way)
            axes.plot(predict.ALL_GPUS, speedups, "--", color=COLOURS[way], label=way)
        axes.set_title(f"COMPUTED, no GPU ran: {GPU}\n{model.sizes.name}", fontsize=9)
        axes.set_xlabel("GPUs (more than 8: nodes of 8)", fontsize=8)
        axes.set_yscale("log", base=2)
    for axes in (first, *others):
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
    first.set_ylabel("speedup over unpatched, one rank", fontsize=8)
    handles = [first.plot([], [], color=colour)[0] for colour in COLOURS.values()]
    figure.legend(handles, list(COLOURS), loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=110)
