"""Refines a schedule by direct search: what a plan expects is a model of the error, this is the
error itself.

One computed step at a time is moved to the neighbouring step, and stays there where the videos are
better for it. The first and the last two steps stay: they are always computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# dB that a move has to gain: less is a matter of the few cases that it is tried on.
GAIN = 0.02


@dataclass(frozen=True)
class RefinedSchedule:
    """A schedule, and what it was before.

    Args:
        steps: computed ones, counted from 1.
        before, after: quality of the schedule to begin with, and of this one.
        tried: schedules that were generated.
    """

    steps: list[int]
    before: float
    after: float
    tried: int


def refine_schedule(
    quality: Callable[[list[int]], float], steps: Sequence[int], *, sweeps: int
) -> RefinedSchedule:
    """The schedule that no move of a single step makes better, or that of the last sweep.

    Args:
        quality: of a schedule, in dB; larger is better.
        steps: to begin with.
        sweeps: over all steps, at most; each tries about two schedules a computed step.
    """
    seen: dict[tuple[int, ...], float] = {}

    def look(found: list[int]) -> float:
        if tuple(found) not in seen:
            seen[tuple(found)] = quality(found)
        return seen[tuple(found)]

    best = list(steps)
    before = look(best)
    for _ in range(sweeps):
        at_first = best
        for place in range(1, len(best) - 2):
            best = _moved(best, place, look)
        if best == at_first:
            break
    return RefinedSchedule(best, before, look(best), len(seen))


def _moved(steps: list[int], place: int, look: Callable[[list[int]], float]) -> list[int]:
    """With one step moved as far as that helps."""
    for direction in (-1, 1):
        while steps[place - 1] < steps[place] + direction < steps[place + 1]:
            other = [*steps]
            other[place] += direction
            if look(other) < look(steps) + GAIN:
                break
            steps = other
    return steps
