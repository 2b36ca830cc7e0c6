"""Rules E1 and E2: a timestep that lies in the memory of its schedule, and a step index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adacache_kernels.engine.clocks.clock import UNKNOWN_STEPS
from adacache_kernels.engine.clocks.step_clock import MOST_GENERATIONS, STALE_CALLS, StepClock
from adacache_kernels.engine.evidence.schedule_place import is_schedule, schedule_place
from tests.engine.clocks.calls import call, places

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "an element": lambda t: t,
    "a row": lambda t: t[None],
    "a batch": lambda t: t.expand(3),
    "a batch of a row": lambda t: t[None].expand(2, 1),
}


def schedule(steps: int, first: float = 1000.0) -> Tensor:
    return torch.linspace(first, 0, steps + 1)[:-1].clone()


def num_steps(clock: StepClock) -> list[int]:
    return [track.num_steps for track in clock._tracks.values()]


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_element_is_the_step(view: Callable[[Tensor], Tensor]) -> None:
    clock, times = StepClock(), schedule(4)
    calls = [call(clock, name, view(t)) for t in times for name in ("cond", "uncond")]
    assert places(calls) == [(s, name) for s in (1, 2, 3, 4) for name in ("cond", "uncond")]
    assert num_steps(clock) == [4] and not any(c.reason for c in calls)


def test_a_schedule_that_begins_late_has_fewer_steps() -> None:
    """Video to video leaves the first steps out."""
    clock, times = StepClock(), schedule(10)
    assert [call(clock, timestep=t).step for t in times[4:]] == [1, 2, 3, 4, 5, 6]
    assert num_steps(clock) == [6]


def test_a_loop_that_runs_backwards() -> None:
    clock, times = StepClock(), schedule(5)
    assert [call(clock, timestep=times[i]).step for i in (4, 3, 2, 1, 0)] == [1, 2, 3, 4, 5]
    assert num_steps(clock) == [5]


def test_a_schedule_with_one_element_more_than_steps() -> None:
    """Sigmas end with a zero that no step is called with."""
    clock, sigmas = StepClock(num_steps=6), schedule(7)
    for sigma in sigmas[:6]:
        call(clock, timestep=sigma)
    assert num_steps(clock) == [6]


def test_the_same_schedule_again_is_another_generation() -> None:
    """G1."""
    clock, times = StepClock(), schedule(5)
    calls = [call(clock, timestep=times[i]) for i in (0, 1, 2, 0, 1)]
    assert [c.step for c in calls] == [1, 2, 3, 1, 2]
    assert [c.first_in_generation for c in calls] == [True, False, False, True, False]


def test_schedules_that_take_turns_are_generations_of_their_own() -> None:
    clock, first, second = StepClock(), schedule(5), schedule(3)
    order = [(first, 0), (second, 0), (second, 1), (first, 1), (first, 2), (second, 2), (first, 3)]
    calls = [call(clock, timestep=times[i]) for times, i in order]
    assert [c.step for c in calls] == [i + 1 for _, i in order]
    assert sorted(num_steps(clock)) == [3, 5]


def test_a_schedule_that_was_written_is_another_generation() -> None:
    clock, times = StepClock(), schedule(5)
    assert call(clock, timestep=times[0]).step == 1
    times.mul_(0.5)
    assert call(clock, timestep=times[1]).first_in_generation


def test_a_schedule_that_skips_elements_is_none() -> None:
    """G2: a table of all training steps, of which a loop takes every fiftieth."""
    clock = StepClock(num_steps=4)
    table = torch.arange(999, -1, -1).float()
    calls = [call(clock, timestep=table[i : i + 1]) for i in (0, 250, 500, 750)]
    # The first call still counted as one of a schedule, so the values begin at the second one.
    assert [c.step for c in calls] == [1, 1, 2, 3]


@pytest.mark.parametrize("times", [[500.0] * 8, [900.0, 100.0, 800.0, 0.0]])
def test_memory_that_is_not_monotone_is_no_schedule(times: list[float]) -> None:
    """G2: the times of a batch, for example, of which each call takes one."""
    tensor = torch.tensor(times)
    assert schedule_place(tensor[1:2]) is not None and not is_schedule(tensor[1:2])
    clock = StepClock(num_steps=9)
    assert call(clock, timestep=tensor[1:2]).step == 1
    assert [track.kind.name for track in clock._tracks.values()] == ["TIMED"]


@pytest.mark.parametrize(
    "timestep",
    [torch.tensor([3.0]), torch.tensor(3.0), torch.tensor([3.0, 2.0]), torch.zeros(0), 3.0, None],
)
def test_values_that_are_in_no_schedule(timestep: Any) -> None:
    assert schedule_place(timestep) is None


def test_a_failed_call_may_be_repeated_but_no_later_step_follows() -> None:
    """G4."""
    clock, times = StepClock(), schedule(6)
    for i in (0, 1):
        call(clock, "cond", times[i])
    (track,) = clock._tracks.values()
    clock.forget_call(track, "cond")
    again = call(clock, "cond", times[1])
    assert (again.step, again.reason, again.first_in_generation) == (2, None, False)
    clock.forget_call(track, "cond")
    assert call(clock, "cond", times[2]).first_in_generation


def test_the_step_index_of_a_context() -> None:
    clock = StepClock()
    calls = [
        call(clock, name, step_index=i, num_inference_steps=3)
        for i in range(3)
        for name in ("cond", "uncond")
    ]
    assert places(calls) == [(s, name) for s in (1, 2, 3) for name in ("cond", "uncond")]
    assert num_steps(clock) == [3]


def test_named_generations_take_turns() -> None:
    clock = StepClock()
    order = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    calls = [
        call(clock, "cond", step_index=i, num_inference_steps=3, generation=key) for key, i in order
    ]
    assert [c.step for c in calls] == [i + 1 for _, i in order]
    assert len(clock._tracks) == 2


def test_named_generations_without_a_step_take_turns_by_their_timesteps() -> None:
    clock = StepClock(num_steps=3)
    order = [("a", 900.0), ("b", 900.0), ("b", 600.0), ("a", 600.0), ("a", 300.0), ("b", 300.0)]
    calls = [call(clock, "cond", time, generation=key) for key, time in order]
    assert [c.step for c in calls] == [1, 1, 2, 2, 3, 3] and not any(c.reason for c in calls)


def test_a_step_index_without_a_number_of_steps_is_not_the_end() -> None:
    clock = StepClock()
    call(clock, "cond", step_index=0)
    assert num_steps(clock) == [UNKNOWN_STEPS]


def test_stale_and_dead_generations_are_dropped() -> None:
    """S2."""
    clock, stopped, running = StepClock(), schedule(50), schedule(100)
    call(clock, timestep=stopped[0])
    for t in running[: STALE_CALLS + 2]:
        call(clock, timestep=t)
    assert num_steps(clock) == [100]
    dead = schedule(5)
    call(clock, timestep=dead[0])
    assert sorted(num_steps(clock)) == [5, 100]
    del dead
    call(clock, timestep=running[80])
    assert 5 not in num_steps(clock)


def test_no_more_than_some_generations_are_kept() -> None:
    clock = StepClock()
    schedules = [schedule(5) for _ in range(MOST_GENERATIONS + 3)]
    for times in schedules:
        call(clock, timestep=times[0])
    assert len(clock._tracks) == MOST_GENERATIONS
    assert call(clock, timestep=schedules[0][1]).first_in_generation
