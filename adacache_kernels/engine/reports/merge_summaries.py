"""Merge the summaries of several engines into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...memory.report import joined_reports
from .summary import Summary
from .user_warnings import UserWarnings


class _ComputedStep(NamedTuple):
    step: int
    distance: float | None
    raw_distance: float | None
    rate: int | None
    motion_score: float | None


def merge_experts(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of models that ran the steps of one generation one after another."""
    if len(summaries) == 1:
        return summaries[0]
    computed = sorted(step for summary in summaries for step in _computed_steps(summary))
    videos = [summary.videos for summary in summaries if summary.videos]
    return replace(
        _merge(summaries, computed),
        model=" and ".join(summary.model for summary in summaries),
        reused_steps=sorted(step for summary in summaries for step in summary.reused_steps),
        videos=[merge_experts(of_video) for of_video in zip(*videos, strict=False)],
    )


def merge_parallel(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of videos or branches that ran the same steps side by side.

    A step is computed if any of them computed it; its values are those of the largest distance.
    """
    if len(summaries) == 1:
        return summaries[0]
    largest: dict[int, _ComputedStep] = {}
    for computed in (step for summary in summaries for step in _computed_steps(summary)):
        before = largest.get(computed.step)
        distance = computed.distance
        if before is None or (distance is not None and distance > (before.distance or 0.0)):
            largest[computed.step] = computed
    reused = {step for summary in summaries for step in summary.reused_steps}
    return replace(
        _merge(summaries, [largest[step] for step in sorted(largest)]),
        reused_steps=sorted(reused - set(largest)),
        videos=list(summaries),
    )


def merge_videos(by_branch: Mapping[str, Summary]) -> list[Summary]:
    """Return the summary of each video, with those of its branches; none if there is one video."""
    names = list(by_branch)
    columns = zip(*(summary.videos for summary in by_branch.values()), strict=False)
    return [
        replace(
            merge_parallel(of_video),
            videos=[],
            branches=names,
            by_branch=dict(zip(names, of_video, strict=True)),
        )
        for of_video in columns
    ]


def _computed_steps(summary: Summary) -> Iterable[_ComputedStep]:
    columns = (
        summary.computed_steps,
        summary.distances,
        summary.raw_distances,
        summary.rates,
        summary.motion_scores,
    )
    return map(_ComputedStep._make, zip(*columns, strict=True))


def _merge(summaries: Sequence[Summary], computed: Sequence[_ComputedStep]) -> Summary:
    """Return the first summary with these computed steps and with the resources of all."""
    return replace(
        summaries[0],
        computed_steps=[row.step for row in computed],
        distances=[row.distance for row in computed],
        raw_distances=[row.raw_distance for row in computed],
        rates=[row.rate for row in computed],
        motion_scores=[row.motion_score for row in computed],
        measured=list(dict.fromkeys(name for s in summaries for name in s.measured)),
        cache_bytes=sum(s.cache_bytes for s in summaries),
        cache_tensors=sum(s.cache_tensors for s in summaries),
        memory=joined_reports([s.memory for s in summaries]),
        branches=list(dict.fromkeys(name for s in summaries for name in s.branches)),
        recomputed=_merge_steps(s.recomputed for s in summaries),
        lower_order=_merge_steps(s.lower_order for s in summaries),
        corrected=_merge_steps(s.corrected for s in summaries),
        waits=[seconds for s in summaries for seconds in s.waits],
        units=(sum(s.units[0] for s in summaries), sum(s.units[1] for s in summaries)),
        **_merge_reasons([(s.reasons, s.reason_steps) for s in summaries]),
    )


def with_reasons(summary: Summary, reasons: UserWarnings) -> Summary:
    """Return the summary with the reasons of an engine around those that it summarizes."""
    around = (reasons.reasons, reasons.reason_steps)
    inside = (summary.reasons, summary.reason_steps)
    return replace(summary, **_merge_reasons([around, inside]))


def _merge_reasons(
    parts: Sequence[tuple[Sequence[str], Mapping[str, Sequence[int]]]],
) -> dict[str, Any]:
    """Return the fields `reasons` and `reason_steps`: each reason once, with the steps of all."""
    steps: dict[str, set[int]] = {}
    for _, of_part in parts:
        for reason, numbers in of_part.items():
            steps.setdefault(reason, set()).update(numbers)
    return {
        "reasons": list(dict.fromkeys(reason for reasons, _ in parts for reason in reasons)),
        "reason_steps": {reason: sorted(numbers) for reason, numbers in steps.items()},
    }


def _merge_steps(parts: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, list[int]]:
    merged: dict[str, list[int]] = {}
    for part in parts:
        for branch, steps in part.items():
            merged[branch] = sorted([*merged.get(branch, []), *steps])
    return merged
