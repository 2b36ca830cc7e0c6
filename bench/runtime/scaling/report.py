"""The tables of counted collectives and of measured times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.runtime.scaling.ranks import STEPS, UNPATCHED, Counted, Size
from bench.runtime.scaling.recorder import Message, Owner

NAMES = {
    "all_to_all_single": "all-to-all",
    "alltoall_base_": "all-to-all",
    "all_gather_into_tensor": "gather",
    "_allgather_base_": "gather",
}


def per_step(messages: Iterable[Message], owner: Owner, steps: Sequence[int]) -> str:
    """Return the collectives of an owner in some steps: number and bytes, fewest to most."""
    own = [message for message in messages if message.owner == owner and message.step in steps]
    if not steps:
        return "-"
    names = list(dict.fromkeys(message.name for message in own))
    cells = []
    for name in names:
        each = [[m.sent for m in own if m.step == step and m.name == name] for step in steps]
        sent = sorted({sum(part) for part in each})
        number = sorted({len(part) for part in each})
        cells.append(f"{_span(number)} {NAMES.get(name, name)}, {_span(sent)} B")
    return "; ".join(cells) or "0"


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def counts(counted: Mapping[int, Mapping[str, Counted]], size: Size) -> str:
    """Return the table of collectives per computed and per reused step, as Markdown."""
    lines = [
        "# Collectives per step",
        "",
        "By `python -m bench.runtime.scaling`, on a CPU with gloo. A Wan model of diffusers with "
        f"{size.layers} small blocks under its Ulysses, {STEPS} steps, one call a step, "
        f"{size.rows} row, float32, latents of {size.frames} x {size.side} x {size.side}. Bytes "
        "are those of the tensors that rank 0 gives to the collective. For PAB a step counts as "
        "computed if no attention is reused.",
        "",
        "| ranks | way | computed steps | the model's, computed step | the model's, reused step "
        "| ours, computed step | ours, reused step | meetings of the hosts, characters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ranks, ways in counted.items():
        for way, each in ways.items():
            reused = [step for step in range(1, STEPS + 1) if step not in each.computed]
            cells = [str(ranks), way, str(len(each.computed))]
            for owner in ("model", "ours"):
                for steps in (each.computed, reused):
                    cells.append(per_step(each.messages, owner, steps))
            met = ", ".join(str(meeting.sent) for meeting in each.meetings)
            lines.append("| " + " | ".join([*cells, met or "0"]) + " |")
    return "\n".join(lines) + "\n"


def ratios(times: Sequence[Mapping[str, Any]], ranks: int, way: str, against: int) -> list[float]:
    """Return the speedups of a way over the unpatched model, each within one round.

    Args:
        times: `round`, `ranks`, `way` and `seconds` of each measurement.
        ranks: the number of ranks.
        way: the way to run the model.
        against: the number of ranks of the unpatched model.
    """
    by_key = {(t["round"], t["ranks"], t["way"]): t["seconds"] for t in times}
    found = []
    for (number, size, name), seconds in by_key.items():
        base = by_key.get((number, against, UNPATCHED))
        if size == ranks and name == way and base:
            found += [float(np.median(base)) / each for each in seconds]
    return found


def times(measured: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of measured speedups, as Markdown."""
    lines = [
        "# Measured speedups",
        "",
        "By `python -m bench.runtime.scaling`: wall time of generations on a shared machine with "
        "two cores, one thread a rank, gloo. Medians (least to most). Four ranks share two cores, "
        "so they cannot be faster than two. Of each generation: against the unpatched model with "
        "one rank, and with as many ranks, in the same round.",
        "",
        "| ranks | way | seconds | over unpatched, 1 rank | over unpatched, as many ranks |",
        "|---|---|---|---|---|",
    ]
    for ranks in sorted({t["ranks"] for t in measured}):
        for way in dict.fromkeys(t["way"] for t in measured):
            here = [t for t in measured if (t["ranks"], t["way"]) == (ranks, way)]
            seconds = [each for t in here for each in t["seconds"]]
            cells = [_spread(ratios(measured, ranks, way, against)) for against in (1, ranks)]
            lines.append(f"| {ranks} | {way} | {_spread(seconds)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
