"""What happened in a generation, and how it is shown to the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..memory.byte_sizes import format_bytes
from ..memory.plan import Storage
from ..memory.report import MemoryReport, joined_reports
from ..schedule import Decision
from ..schedule.codebook import plain_pairs


@dataclass
class History:
    """Steps of one generation as they happen."""

    num_steps: int = 0
    computed: list[int] = field(default_factory=list)
    reused: list[int] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    recomputed: dict[str, list[int]] = field(default_factory=dict)
    lower_order: dict[str, list[int]] = field(default_factory=dict)
    corrected: dict[str, list[int]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether the last step has begun. One of two experts runs but a part of the steps."""
        return self.num_steps > 0 and max([0, *self.computed, *self.reused]) >= self.num_steps


@dataclass(frozen=True)
class Summary:
    """The last generation of a patched model.

    Steps are counted from 1. `distances`, `raw_distances`, `rates` and `motion_scores` have one
    entry per computed step, None where nothing was measured (the first computed step).

    Args:
        model: the model's class.
        found: its block lists, and how they were found.
        num_steps: steps of the generation.
        computed_steps: steps that ran the blocks.
        reused_steps: steps that added residuals instead.
        distances: what the codebook was asked with, motion regularisation included.
        raw_distances: distances without motion regularisation.
        rates: steps from this computed step to the next one.
        motion_scores: scores of motion regularisation; 1 without it or outside its window.
        measured: the residuals that distances are of, as `cache_res` names them; "block" where a
            compiled block hides the others; empty where none is measured.
        cache_bytes: bytes that the cache holds on the model's device, counted over its tensors.
        cache_tensors: number of its slots, those in host memory included.
        memory: what was planned, how residuals are stored, what was refused, the arena.
        branches: branches of guidance, by context name or place in the step.
        recomputed: per branch, the steps to be reused that it computed, having nothing to reuse.
        lower_order: per branch, the reused steps with too few residuals for the forecast's order.
        corrected: per branch, the computed steps that made up for what the forecasts missed.
        waits: seconds of each wait of the host for a decision of the device, which goes on with the
            rest of its step in the meantime.
        config: the settings, as `AdaCacheConfig.to_dict` gives them.
        codebook: pairs (threshold, rate) in force for this number of steps; empty where a schedule
            or a profile decides.
        videos: with batch="each", what each video of the batch has done; empty otherwise. Here, a
            step is computed if any of them computed it, and its distance is their largest.
        by_branch: with decide_for="branch", the same of each branch of guidance.
        units: how many have run, and how many were called: steps, or, with a method that reuses
            parts of a step, blocks or modules.
    """

    model: str
    found: str
    num_steps: int
    computed_steps: list[int]
    reused_steps: list[int]
    distances: list[float | None]
    raw_distances: list[float | None]
    rates: list[int | None]
    motion_scores: list[float | None]
    measured: list[str]
    cache_bytes: int
    cache_tensors: int
    memory: MemoryReport
    branches: list[str]
    recomputed: dict[str, list[int]]
    lower_order: dict[str, list[int]]
    corrected: dict[str, list[int]]
    waits: list[float]
    config: dict[str, Any]
    codebook: list[tuple[float, int]]
    videos: list[Summary] = field(default_factory=list)
    by_branch: dict[str, Summary] = field(default_factory=dict)
    units: tuple[int, int] = (0, 0)

    @property
    def computed_fraction(self) -> float:
        """Share of the steps, blocks or modules that have run; 1 before there were any."""
        ran, called = self.units
        return ran / called if called else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings only, for JSON; the codebook's last threshold may be null."""
        return asdict(self) | {
            "codebook": plain_pairs(self.codebook),
            "computed_fraction": self.computed_fraction,
            "videos": [video.to_dict() for video in self.videos],
            "by_branch": {name: branch.to_dict() for name, branch in self.by_branch.items()},
        }

    def __str__(self) -> str:
        done = len(self.computed_steps) + len(self.reused_steps)
        if not done:
            return f"{self.model}: patched, no generation yet\n  blocks    {self.found}"
        lines = [
            f"{self.model}: {len(self.computed_steps)} of {done} steps computed "
            f"({self.num_steps} planned), {len(self.reused_steps)} reused, "
            f"{self.cache_tensors} slots, {format_bytes(self.cache_bytes)} cached",
            f"  blocks    {self.found}",
            "  computed  " + " ".join(map(str, self.computed_steps)),
            "  distance  " + _row(self.distances, "{:.3f}"),
            "  motion    " + _row(self.motion_scores, "{:.2f}"),
            "  rate      " + _row(self.rates, "{}"),
        ]
        lines += [
            f"  video {index}   " + " ".join(map(str, video.computed_steps))
            for index, video in enumerate(self.videos)
        ]
        lines += [
            f"  branch {name!r}  " + " ".join(map(str, branch.computed_steps))
            for name, branch in self.by_branch.items()
        ]
        if self.units[1] > done:
            ran, called = self.units
            lines.append(f"  parts     {ran} of {called} blocks or modules computed")
        if self.waits:
            lines.append(f"  waits     {len(self.waits)}, {1e3 * sum(self.waits):.1f} ms")
        lines += [
            f"  branch {branch!r} computed reusable steps {' '.join(map(str, steps))}"
            for branch, steps in self.recomputed.items()
        ]
        lines += [
            f"  branch {branch!r} forecast at a lower order {' '.join(map(str, steps))}"
            for branch, steps in self.lower_order.items()
        ]
        return "\n".join([*lines, *_memory_lines(self.memory)])


def _memory_lines(memory: MemoryReport) -> list[str]:
    """How residuals are stored where that is not as usual, and why."""
    lines = []
    if memory.on_host or memory.storage != str(Storage()):
        lines.append(f"  stored    in {memory.storage}; {format_bytes(memory.on_host)} on the host")
    lines += [f"  did not fit: {refused.splitlines()[0]}" for refused in memory.refused]
    if memory.arena is not None and not memory.arena.is_virtual:
        lines.append(f"  arena     plain allocations: {memory.arena.why_not_virtual}")
    return lines


def summarize(
    history: History,
    *,
    model: str,
    found: str,
    branches: Sequence[str],
    measured: Sequence[str],
    memory: MemoryReport,
    config: Mapping[str, Any],
    codebook: Sequence[tuple[float, int]],
) -> Summary:
    """The `Summary` of a history."""
    decisions = [history.decisions.get(step) for step in history.computed]
    return Summary(
        model=model,
        found=found,
        num_steps=history.num_steps,
        computed_steps=list(history.computed),
        reused_steps=list(history.reused),
        distances=[d.distance if d else None for d in decisions],
        raw_distances=[d.raw_distance if d else None for d in decisions],
        rates=[d.rate if d else None for d in decisions],
        motion_scores=[d.motion if d and d.distance is not None else None for d in decisions],
        measured=list(measured),
        cache_bytes=memory.in_use,
        cache_tensors=memory.slots,
        memory=memory,
        branches=list(branches),
        recomputed=_copy(history.recomputed),
        lower_order=_copy(history.lower_order),
        corrected=_copy(history.corrected),
        waits=list(history.waits),
        config=dict(config),
        codebook=list(codebook),
        units=(len(history.computed), len(history.computed) + len(history.reused)),
    )


def joined(summaries: Sequence[Summary]) -> Summary:
    """Of models that made one generation between them, one step after the other."""
    if len(summaries) == 1:
        return summaries[0]
    rows = sorted(row for s in summaries for row in _rows(s))
    of_videos = [s.videos for s in summaries if s.videos]
    return replace(
        _gathered(summaries, rows),
        model=" and ".join(s.model for s in summaries),
        reused_steps=sorted(step for s in summaries for step in s.reused_steps),
        videos=[joined(same) for same in zip(*of_videos, strict=False)],
    )


def together(summaries: Sequence[Summary]) -> Summary:
    """Of the videos of a batch, which were generated beside each other."""
    if len(summaries) == 1:
        return summaries[0]
    largest: dict[int, _Row] = {}
    for row in (row for s in summaries for row in _rows(s)):
        step, distance, *_ = row
        before = largest.get(step)
        if before is None or (distance is not None and distance > (before[1] or 0.0)):
            largest[step] = row
    reused = {step for s in summaries for step in s.reused_steps}
    return replace(
        _gathered(summaries, [largest[step] for step in sorted(largest)]),
        reused_steps=sorted(reused - set(largest)),
        videos=list(summaries),
    )


_Row = tuple[int, float | None, float | None, int | None, float | None]


def _rows(s: Summary) -> Iterable[_Row]:
    """One of each computed step."""
    columns = (s.computed_steps, s.distances, s.raw_distances, s.rates, s.motion_scores)
    return zip(*columns, strict=True)


def _gathered(summaries: Sequence[Summary], rows: Sequence[_Row]) -> Summary:
    """The first of them with these computed steps, and with what all of them hold and took."""
    return replace(
        summaries[0],
        computed_steps=[row[0] for row in rows],
        distances=[row[1] for row in rows],
        raw_distances=[row[2] for row in rows],
        rates=[row[3] for row in rows],
        motion_scores=[row[4] for row in rows],
        measured=list(dict.fromkeys(name for s in summaries for name in s.measured)),
        cache_bytes=sum(s.cache_bytes for s in summaries),
        cache_tensors=sum(s.cache_tensors for s in summaries),
        memory=joined_reports([s.memory for s in summaries]),
        branches=list(dict.fromkeys(name for s in summaries for name in s.branches)),
        recomputed=_merged(s.recomputed for s in summaries),
        lower_order=_merged(s.lower_order for s in summaries),
        corrected=_merged(s.corrected for s in summaries),
        waits=[seconds for s in summaries for seconds in s.waits],
        units=(sum(s.units[0] for s in summaries), sum(s.units[1] for s in summaries)),
    )


def _merged(parts: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, list[int]]:
    merged: dict[str, list[int]] = {}
    for part in parts:
        for branch, steps in part.items():
            merged[branch] = sorted([*merged.get(branch, []), *steps])
    return merged


def _copy(steps: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {branch: list(of_branch) for branch, of_branch in steps.items()}


def _row(values: Sequence[float | int | None], form: str) -> str:
    return " ".join("-" if value is None else form.format(value) for value in values)
