"""Rows and table of the rounds that `bench/runtime/overhead.py` has timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNPATCHED, EMPTIED = "unpatched", "block lists emptied"
COMPUTED = ("schedule of all steps", "codebook never reuses", "forecast never reuses")
REUSED = ("reused", "reused, a line through two")
FOLLOWED = {EMPTIED: f"{EMPTIED}, next step", "reused": "reused, next step"}
"""Reused steps follow each other: these are timed a second time at once, with warm caches."""
QUARTERS = (25, 50, 75)
AIMS = {
    f"{UNPATCHED} again": None,
    f"{EMPTIED} again": None,
    **dict.fromkeys(COMPUTED, 1.01),
    **dict.fromkeys((*REUSED, FOLLOWED["reused"]), 1.3),
}
"""Upper limits of the ratios; ways with None show the noise."""


@dataclass(frozen=True)
class Row:
    """The times of one way to run one model.

    Times are milliseconds a step. Ratios are to `against` in the same round; `of_min` is the ratio
    of the shortest steps.
    """

    model: str
    way: str
    against: str
    rounds: int
    wall_min: float
    wall_p25: float
    wall_p50: float
    wall_p75: float
    cpu_min: float
    cpu_p50: float
    ratio_p25: float
    ratio_p50: float
    ratio_p75: float
    cpu_ratio_p50: float
    of_min: float


def rows(model: str, times: Mapping[str, Sequence[tuple[int, int]]]) -> list[Row]:
    """Return a row for each way, from nanoseconds (wall, CPU) by round."""
    milliseconds = {way: np.array(each, dtype=float) / 1e6 for way, each in times.items()}
    return [_row(model, way, each, milliseconds) for way, each in milliseconds.items()]


def _against(way: str) -> str:
    if way == FOLLOWED["reused"]:
        return FOLLOWED[EMPTIED]
    return EMPTIED if way in REUSED or way.startswith(EMPTIED) else UNPATCHED


def _row(
    model: str, way: str, each: NDArray[np.float64], all_ways: Mapping[str, NDArray[np.float64]]
) -> Row:
    against = _against(way)
    wall, cpu = each.T
    ratio, cpu_ratio = (each / all_ways[against]).T
    numbers = (
        wall.min(), *np.percentile(wall, QUARTERS), cpu.min(), np.median(cpu),
        *np.percentile(ratio, QUARTERS), np.median(cpu_ratio),
        wall.min() / all_ways[against][:, 0].min(),
    )  # fmt: skip
    return Row(model, way, against, len(each), *(float(f"{number:.5g}") for number in numbers))


def table(found: Sequence[Row], about: Mapping[str, str]) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Overhead",
        "",
        "Milliseconds a step, and ratios of two steps of one round: median (quartiles). By "
        "`python -m bench.runtime.overhead`; "
        + ", ".join(f"{name} {value}" for name, value in about.items())
        + ".",
        "",
        "| model | step | ms | against | ratio | of CPU time | of shortest | aim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        is_base = row.way == row.against
        ratio = f"{row.ratio_p50:.3f} ({row.ratio_p25:.3f} to {row.ratio_p75:.3f})"
        others = ("", "", "", "") if is_base else (
            row.against, ratio, f"{row.cpu_ratio_p50:.3f}", f"{row.of_min:.3f}",
        )  # fmt: skip
        aim = AIMS.get(row.way)
        limit = "" if aim is None else f"{aim:g}"
        cells = (row.model, row.way, f"{row.wall_p50:.2f}", *others, limit)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
