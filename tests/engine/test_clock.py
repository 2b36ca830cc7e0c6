"""Step clocks that assign steps and branches without reading a timestep."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from adacache_kernels.engine.clocks.call_clock import CallClock
from adacache_kernels.engine.clocks.scheduler_clock import MOST_CALLS_PER_STEP, SchedulerClock

from adacache_kernels.engine.cache_context import cache_context, current_context
from adacache_kernels.engine.clocks.clock import Call


class Scheduler:
    """The part of a diffusers scheduler that the clock uses."""

    def __init__(self) -> None:
        self.timesteps: list[int] = []
        self.steps = 0

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        self.timesteps = list(range(num_inference_steps))

    def step(self, sample: int, generator: object = None) -> int:
        self.steps += 1
        return sample + 1


def pipeline() -> Any:
    return SimpleNamespace(scheduler=Scheduler())


def steps_of(calls: list[Call | None]) -> list[tuple[int, str]]:
    return [(call.step, call.branch) for call in calls if call is not None]


def test_each_call_is_a_step() -> None:
    clock = CallClock(2)
    calls = [clock.next_call(None) for _ in range(5)]
    assert [call.step for call in calls] == [1, 2, 1, 2, 1]
    assert [call.first_in_generation for call in calls] == [True, False, True, False, True]


def test_two_calls_a_step() -> None:
    clock = CallClock(2, calls_per_step=2)
    calls = [clock.next_call(None) for _ in range(5)]
    assert steps_of([*calls]) == [(1, "0"), (1, "1"), (2, "0"), (2, "1"), (1, "0")]
    assert [call.first_in_step for call in calls] == [True, False, True, False, True]


def test_a_context_that_comes_again_begins_a_step() -> None:
    clock = CallClock(3)
    names = ["cond", "uncond", "cond", "uncond", "uncond", "cond"]
    calls = [clock.next_call(name) for name in names]
    assert [call.step for call in calls] == [1, 1, 2, 2, 3, 3]


def test_restart_of_a_bare_model() -> None:
    clock = CallClock(5)
    clock.next_call(None)
    clock.next_call(None)
    clock.restart()
    call = clock.next_call(None)
    assert (call.step, call.first_in_generation) == (1, True)


def test_the_scheduler_counts_the_steps() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(3)
    calls = []
    for _ in range(3):
        calls += [clock.next_call(None), clock.next_call(None)]
        pipe.scheduler.step(0)
    assert clock.num_steps == 3
    assert steps_of(calls) == [(1, "0"), (1, "1"), (2, "0"), (2, "1"), (3, "0"), (3, "1")]


def test_a_new_generation_and_another_number_of_steps() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    for num_steps in (5, 4):
        pipe.scheduler.set_timesteps(num_steps)
        call = clock.next_call("cond")
        assert call == Call(1, "cond", first_in_generation=True, first_in_step=True)
        assert clock.num_steps == num_steps
        pipe.scheduler.step(0)


def test_the_pipeline_reports_the_length_of_a_partial_schedule() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(10)
    pipe._num_timesteps = 6
    clock.next_call(None)
    assert clock.num_steps == 6


def test_the_number_of_steps_of_an_earlier_run_is_ignored() -> None:
    """A second pipeline shares the scheduler, and stores its number of steps on itself."""
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe._num_timesteps = 4
    pipe.scheduler.set_timesteps(10)
    clock.next_call(None)
    assert clock.num_steps == 10


def test_more_steps_than_announced_have_no_call() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(1)
    assert clock.next_call(None) is not None
    pipe.scheduler.step(0)
    assert clock.next_call(None) is None


def test_too_many_calls_without_a_scheduler_step_have_no_call() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(3)
    calls = [clock.next_call(None) for _ in range(MOST_CALLS_PER_STEP + 1)]
    assert calls[-2] is not None and calls[-1] is None


def test_another_scheduler_is_followed() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    first, pipe.scheduler = pipe.scheduler, Scheduler()
    pipe.scheduler.set_timesteps(4)
    assert clock.next_call(None) is not None
    pipe.scheduler.step(0)
    call = clock.next_call(None)
    assert call is not None and call.step == 2
    assert vars(first).keys() == vars(Scheduler()).keys()


def test_the_scheduler_keeps_its_signatures_and_results() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    scheduler = pipe.scheduler
    assert "device" in inspect.signature(scheduler.set_timesteps).parameters
    assert "generator" in inspect.signature(scheduler.step).parameters
    assert scheduler.step(41) == 42
    clock.detach()
    assert vars(scheduler).keys() == vars(Scheduler()).keys()


def test_a_copy_of_the_scheduler_steps_itself() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(3)
    clock.next_call(None)
    other = copy.deepcopy(pipe.scheduler)
    other.step(0)
    assert (other.steps, pipe.scheduler.steps) == (1, 0)
    call = clock.next_call(None)
    assert call is not None and call.step == 1


def test_copies_of_the_scheduler_step_instead_of_it() -> None:
    """In diffusion forcing each frame has a copy of the scheduler, and some copies step."""
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    for _window in range(2):
        pipe.scheduler.set_timesteps(3)
        copies = [copy.deepcopy(pipe.scheduler) for _ in range(4)]
        for scheduler in copies:
            scheduler.set_timesteps(3)
        calls = []
        for _ in range(3):
            calls += [clock.next_call("cond"), clock.next_call("uncond")]
            for scheduler in copies[1:]:
                scheduler.step(0)
        pairs = [(step, name) for step in (1, 2, 3) for name in ("cond", "uncond")]
        assert steps_of(calls) == pairs
        assert pipe.scheduler.steps == 0 and [c.steps for c in copies] == [0, 3, 3, 3]


def test_frames_one_after_the_other_take_more_steps_than_are_scheduled() -> None:
    pipe = pipeline()
    clock = SchedulerClock(pipe)
    pipe.scheduler.set_timesteps(3)
    pipe._num_timesteps = 7
    for step in range(1, 8):
        call = clock.next_call(None)
        assert call is not None and call.step == step and clock.num_steps == 7
        pipe.scheduler.step(0)


def test_contexts_nest_and_end() -> None:
    assert current_context() is None
    with cache_context("outer"):
        with cache_context("inner"):
            assert current_context() == "inner"
        assert current_context() == "outer"
    assert current_context() is None


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (None, TypeError), (1, TypeError)])
def test_wrong_context_names(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="cache_context takes a name"), cache_context(name):
        pass
