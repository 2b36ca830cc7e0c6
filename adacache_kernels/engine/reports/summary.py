"""The history of a generation, and its summary for the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...memory.byte_sizes import format_bytes
from ...memory.plan import Storage
from ...memory.report import MemoryReport
from ...schedule import Decision
from ...schedule.codebook import plain_pairs
from .user_warnings import UserWarnings


@dataclass
class History:
    """The steps of one generation so far.

    Args:
        num_steps: steps of the generation; 0 if unknown.
        computed: the steps that ran the blocks, counted from 1.
        reused: the steps that added residuals instead.
        decisions: the decision of each computed step that has one.
        recomputed: for each branch, the steps that it computed because it had nothing to reuse.
        lower_order: for each branch, the reused steps with too few residuals for the order of the
            forecast.
        corrected: for each branch, the computed steps whose output was corrected.
        waits: seconds of each wait of the host for a decision.
    """

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
        """Return True if the last step has begun; one of two experts may never see that step."""
        return self.num_steps > 0 and max([0, *self.computed, *self.reused]) >= self.num_steps


@dataclass(frozen=True)
class Summary:
    """The last generation of a patched model.

    Steps are counted from 1. `distances`, `raw_distances`, `rates` and `motion_scores` have one
    entry for each computed step. It is None if nothing was measured, as in the first computed step.

    Args:
        model: the class of the model.
        found: its block lists, and how they were detected.
        num_steps: steps of the generation.
        computed_steps: the steps that ran the blocks.
        reused_steps: the steps that added residuals instead.
        distances: the distances that the codebook was asked with, motion regularization included.
        raw_distances: the distances without motion regularization.
        rates: steps from this computed step to the next one.
        motion_scores: motion scores; 1 without motion regularization or outside its window.
        measured: the names of the measured residuals, as `cache_res` names them; "block" if a
            compiled block hides the others; empty if none is measured.
        cache_bytes: bytes that the cache uses on the model's device, counted over its tensors.
        cache_tensors: the number of slots, those in host memory included.
        memory: the plan, the storage of residuals, what was refused, and the arena.
        branches: the guidance branches, by context name or index in the step.
        recomputed: for each branch, the steps to be reused that it computed, because it had nothing
            to reuse.
        lower_order: for each branch, the reused steps with too few residuals for the order of the
            forecast.
        corrected: for each branch, the computed steps whose output compensates for forecast errors.
        waits: seconds of each wait of the host for a decision. The device continues with its step
            in the meantime.
        config: the settings, as `AdaCacheConfig.to_dict` returns them.
        codebook: pairs (threshold, rate) for this number of steps; empty if a schedule or a profile
            decides.
        videos: with batch="each", the summary of each video; else empty. The joint summary counts a
            step as computed if any video computed it, and shows the largest distance.
        by_branch: with decide_for="branch", the summary of each guidance branch; else empty.
        units: the number of units that ran and the number that were called. Units are steps; or
            blocks or modules, if a baseline reuses parts of a step.
        reasons: the reasons why steps were computed that could have been reused, and all other
            warnings of this generation, even if they were not shown again.
        reason_steps: the steps of each reason that belongs to steps.
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
    reasons: list[str] = field(default_factory=list)
    reason_steps: dict[str, list[int]] = field(default_factory=dict)

    @property
    def computed_fraction(self) -> float:
        """Return the share of the steps, blocks or modules that ran; 1 before the first."""
        ran, called = self.units
        return ran / called if called else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return lists, numbers and strings for JSON.

        The codebook's last threshold is None if it is infinite.
        """
        return asdict(self) | {
            "codebook": plain_pairs(self.codebook),
            "computed_fraction": self.computed_fraction,
            "videos": [video.to_dict() for video in self.videos],
            "by_branch": {name: branch.to_dict() for name, branch in self.by_branch.items()},
        }

    def __str__(self) -> str:
        """Return the summary as text of several lines."""
        if not (self.computed_steps or self.reused_steps):
            lines = [f"{self.model}: patched, no generation yet", f"  blocks    {self.found}"]
            return "\n".join([*lines, *_reason_lines(self)])
        lines = [*_step_lines(self), *_part_lines(self), *_branch_lines(self)]
        return "\n".join([*lines, *_memory_lines(self.memory), *_reason_lines(self)])


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
    reasons: UserWarnings,
) -> Summary:
    """Return the summary of a history; `Summary` describes the arguments."""
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
        reasons=reasons.reasons,
        reason_steps=reasons.reason_steps,
    )


def _copy(steps: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {branch: list(of_branch) for branch, of_branch in steps.items()}


def _step_lines(summary: Summary) -> list[str]:
    computed, reused = len(summary.computed_steps), len(summary.reused_steps)
    return [
        f"{summary.model}: {computed} of {computed + reused} steps computed "
        f"({summary.num_steps} planned), {reused} reused, "
        f"{summary.cache_tensors} slots, {format_bytes(summary.cache_bytes)} cached",
        f"  blocks    {summary.found}",
        f"  computed  {_words(summary.computed_steps)}",
        f"  distance  {_values(summary.distances, '{:.3f}')}",
        f"  motion    {_values(summary.motion_scores, '{:.2f}')}",
        f"  rate      {_values(summary.rates, '{}')}",
    ]


def _part_lines(summary: Summary) -> list[str]:
    """Return lines for videos, branches, parts of steps, and waits, if there are any."""
    lines = [
        f"  video {index}   {_words(video.computed_steps)}"
        for index, video in enumerate(summary.videos)
    ]
    lines += [
        f"  branch {name!r}  {_words(branch.computed_steps)}"
        for name, branch in summary.by_branch.items()
    ]
    ran, called = summary.units
    if called > len(summary.computed_steps) + len(summary.reused_steps):
        lines.append(f"  parts     {ran} of {called} blocks or modules computed")
    if summary.waits:
        lines.append(f"  waits     {len(summary.waits)}, {1e3 * sum(summary.waits):.1f} ms")
    return lines


def _branch_lines(summary: Summary) -> list[str]:
    lines = [
        f"  branch {branch!r} computed reusable steps {_words(steps)}"
        for branch, steps in summary.recomputed.items()
    ]
    lines += [
        f"  branch {branch!r} forecast at a lower order {_words(steps)}"
        for branch, steps in summary.lower_order.items()
    ]
    return lines


def _reason_lines(summary: Summary) -> list[str]:
    lines = []
    for reason in summary.reasons:
        steps = summary.reason_steps.get(reason, [])
        word = "steps" if len(steps) > 1 else "step"
        at = f" ({word} {', '.join(map(str, steps))})" if steps else ""
        lines.append(f"  reason    {reason}{at}")
    return lines


def _memory_lines(memory: MemoryReport) -> list[str]:
    """Return lines for what is unusual: the storage, what did not fit, a plain arena."""
    lines = []
    if memory.on_host or memory.storage != str(Storage()):
        lines.append(f"  stored    in {memory.storage}; {format_bytes(memory.on_host)} on the host")
    lines += [f"  did not fit: {refused.splitlines()[0]}" for refused in memory.refused]
    if memory.arena is not None and not memory.arena.is_virtual:
        lines.append(f"  arena     plain allocations: {memory.arena.why_not_virtual}")
    return lines


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _values(values: Sequence[float | int | None], form: str) -> str:
    return _words("-" if value is None else form.format(value) for value in values)
