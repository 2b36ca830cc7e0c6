"""The refinement of a schedule by direct search.

A plan predicts the error of a schedule; here, the error itself is measured. One computed step at a
time moves to the neighbouring step, and stays there if the videos improve. The first step and the
last two never move: they are always computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..schedule.profile import Profile
from .measured_cases import MeasuredCases
from .record import Case

# dB that a move has to gain. A smaller gain is noise of the few cases that moves are measured with.
GAIN = 0.02
# Cases that a refined schedule is measured with.
REFINE_CASES = 12


@dataclass(frozen=True)
class RefinedSchedule:
    """A refined schedule.

    Args:
        steps: computed steps, counted from 1.
        before, after: quality of the first schedule and of this one, in dB.
        measured: number of schedules that were generated.
    """

    steps: list[int]
    before: float
    after: float
    measured: int


def refine_schedule(
    quality: Callable[[list[int]], float], steps: Sequence[int], *, sweeps: int
) -> RefinedSchedule:
    """Return a schedule that no move of a single step improves, or that of the last sweep.

    Args:
        quality: from a schedule to its quality in dB; larger is better.
        steps: the first schedule.
        sweeps: over all steps, at most. Each measures about two schedules for a computed step.
    """
    known: dict[tuple[int, ...], float] = {}

    def measured(schedule: list[int]) -> float:
        if tuple(schedule) not in known:
            known[tuple(schedule)] = quality(schedule)
        return known[tuple(schedule)]

    best = list(steps)
    before = measured(best)
    for _ in range(sweeps):
        previous = best
        for index in range(1, len(best) - 2):
            best = _with_step_moved(best, index, measured)
        if best == previous:
            break
    return RefinedSchedule(best, before, measured(best), len(known))


def _with_step_moved(
    steps: list[int], index: int, quality: Callable[[list[int]], float]
) -> list[int]:
    """Move one step as far as that improves the quality."""
    for direction in (-1, 1):
        while steps[index - 1] < steps[index] + direction < steps[index + 1]:
            other = [*steps]
            other[index] += direction
            if quality(other) < quality(steps) + GAIN:
                break
            steps = other
    return steps


def refine_planned(
    measured: MeasuredCases[Case], planned: dict[str, Any], sweeps: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Refine the plan of a profile.

    Args:
        measured: the cases.
        planned: settings for `patch` with a profile and computed_steps.
        sweeps: at most.

    Returns:
        The better ones of the planned settings and those of the refined schedule; and notes.
    """
    profile: Profile = planned["profile"]
    plan, schedules = profile.plan(measured.runner.settings.get("forecast", 0)), 0

    def quality(candidate: dict[str, Any]) -> float:
        nonlocal schedules
        schedules += 1
        doing = f"refining, schedule {schedules}"
        return statistics.mean(measured.psnrs(candidate, doing, REFINE_CASES))

    refined = refine_schedule(
        lambda steps: quality({"profile": profile, "schedule": steps}),
        plan.schedule(plan.price_for(planned["computed_steps"])),
        sweeps=sweeps,
    )
    before = quality(planned)
    notes = {
        "planned": round(before, 2),
        "refined": round(refined.after, 2),
        "schedules": schedules,
    }
    if refined.after <= before:
        return planned, {"refine": notes}
    return {"profile": profile, "schedule": refined.steps}, {"refine": notes}
