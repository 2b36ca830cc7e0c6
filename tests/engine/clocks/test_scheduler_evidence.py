"""Rule E3: the steps of a watched scheduler."""

from __future__ import annotations

import copy
import inspect
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.engine.clocks.clock import UNKNOWN_STEPS
from adacache_kernels.engine.clocks.scheduler_watch import IDLE_STEPS_FOR_WARNING
from adacache_kernels.engine.clocks.step_clock import StepClock
from adacache_kernels.engine.clocks.track_clock import BranchClock
from tests.engine.clocks.calls import Scheduler, call, pipeline, places, watching

COND, UNCOND = torch.ones(2), torch.zeros(2)


def test_the_scheduler_counts_the_steps() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    calls = []
    for _ in range(3):
        calls += [call(clock, text=COND), call(clock, text=UNCOND)]
        pipe.scheduler.step(0)
    assert places(calls) == [(1, "0"), (1, "1"), (2, "0"), (2, "1"), (3, "0"), (3, "1")]
    assert not any(c.reason for c in calls)


def test_a_pipeline_before_its_first_generation_is_no_model_without_a_number_of_steps() -> None:
    assert watching(pipeline()).num_steps == 0
    assert StepClock().num_steps == UNKNOWN_STEPS < 0


def test_timesteps_that_agree_with_the_scheduler() -> None:
    """G3: copies of the timesteps, which are no views, in both calls of a step."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    calls = []
    for time in (900.0, 600.0, 300.0):
        calls += [call(clock, timestep=torch.tensor(time), text=text) for text in (COND, UNCOND)]
        pipe.scheduler.step(0)
    assert places(calls) == [(s, b) for s in (1, 2, 3) for b in ("0", "1")]
    assert [track.kind.name for track in clock._tracks.values()] == ["WATCHED"]


def test_a_timestep_that_turns_back_contradicts_the_scheduler() -> None:
    """G3."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(4)
    for time in (1000.0, 750.0):
        call(clock, timestep=torch.tensor(time))
        pipe.scheduler.step(0)
    assert call(clock, timestep=torch.tensor(1000.0)).first_in_generation


def test_a_new_generation_and_another_number_of_steps() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    tracks = []
    for num_steps in (5, 4):
        pipe.scheduler.set_timesteps(num_steps)
        assert call(clock, "cond").first_in_generation
        tracks.append(next(reversed(clock._tracks.values())))
        assert tracks[-1].num_steps == num_steps
        pipe.scheduler.step(0)
    assert tracks[0] is not tracks[1]


@pytest.mark.parametrize("stored, steps", [(6, 6), (None, 10)])
def test_the_pipeline_reports_the_length_of_a_partial_schedule(
    stored: int | None, steps: int
) -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe._num_timesteps = 4  # of an earlier run
    pipe.scheduler.set_timesteps(10)
    pipe._num_timesteps = stored
    call(clock)
    assert [track.num_steps for track in clock._tracks.values()] == [steps]


def test_more_steps_than_announced_have_no_evidence() -> None:
    """G5, G6."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(1)
    assert call(clock).reason is None
    pipe.scheduler.step(0)
    assert call(clock).reason is not None


def test_two_calls_of_a_step_that_cannot_be_told_apart_are_computed() -> None:
    """B5: from the second call on, for the rest of the generation."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    first, second = call(clock, text=COND), call(clock, text=COND)
    pipe.scheduler.step(0)
    third = call(clock, text=COND)
    assert [c.reason is None for c in (first, second, third)] == [True, False, False]
    assert places([first, second, third]) == [(1, "0"), (1, "0"), (2, "0")]


def test_another_scheduler_is_followed() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    first, pipe.scheduler = pipe.scheduler, Scheduler()
    pipe.scheduler.set_timesteps(4)
    call(clock)
    # The clock watches the new one from the first call on.
    pipe.scheduler.set_timesteps(4)
    call(clock)
    pipe.scheduler.step(0)
    assert call(clock).step == 2
    assert vars(first).keys() == vars(Scheduler()).keys()


def test_another_scheduler_in_the_middle_begins_a_generation() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(4)
    call(clock)
    pipe.scheduler.step(0)
    assert call(clock).step == 2
    pipe.scheduler = Scheduler()
    pipe.scheduler.set_timesteps(4)
    assert call(clock).first_in_generation


def test_the_scheduler_keeps_its_signatures_and_results() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    scheduler = pipe.scheduler
    assert "device" in inspect.signature(scheduler.set_timesteps).parameters
    assert "generator" in inspect.signature(scheduler.step).parameters
    assert scheduler.step(41) == 42
    clock.detach()
    assert vars(scheduler).keys() == vars(Scheduler()).keys()


def test_a_copy_of_the_scheduler_steps_itself() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    call(clock, text=COND)
    other = copy.deepcopy(pipe.scheduler)
    other.step(0)
    assert (other.steps, pipe.scheduler.steps) == (1, 0)
    assert call(clock, text=UNCOND).step == 1


def test_copies_of_the_scheduler_step_instead_of_it() -> None:
    """In diffusion forcing each frame has a copy of the scheduler, and some copies step."""
    pipe = pipeline()
    clock = watching(pipe)
    for _window in range(2):
        pipe.scheduler.set_timesteps(3)
        copies = [copy.deepcopy(pipe.scheduler) for _ in range(4)]
        for scheduler in copies:
            scheduler.set_timesteps(3)
        calls = []
        for _ in range(3):
            calls += [call(clock, "cond"), call(clock, "uncond")]
            for scheduler in copies[1:]:
                scheduler.step(0)
        assert places(calls) == [(s, name) for s in (1, 2, 3) for name in ("cond", "uncond")]


def test_a_copy_of_a_scheduler_that_is_no_longer_watched() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    other = copy.deepcopy(pipe.scheduler)
    clock.detach()
    assert (other.step(41), other.steps) == (42, 1)


def test_the_clock_of_a_branch_is_that_of_the_engine_with_one_call_in_a_step() -> None:
    of_engine = SimpleNamespace(num_steps=7, scheduler=Scheduler(), has_guidance=True)
    clock = BranchClock(of_engine)
    assert (clock.num_steps, clock.scheduler) == (7, of_engine.scheduler)
    assert (clock.has_guidance, clock.calls(2)) == (True, 1)


def test_frames_one_after_the_other_take_more_steps_than_are_scheduled() -> None:
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    pipe._num_timesteps = 7
    calls = []
    for _ in range(7):
        calls.append(call(clock))
        pipe.scheduler.step(0)
    assert [c.step for c in calls] == list(range(1, 8)) and not any(c.reason for c in calls)


def test_another_thread_is_no_evidence() -> None:
    """G3."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(3)
    call(clock)
    pipe.scheduler.step(0)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call(clock)))
    thread.start()
    thread.join()
    assert found[0].reason is not None
    assert (call(clock).step, call(clock, "cond").reason) == (2, None)


@pytest.mark.parametrize("stored, is_evidence", [(1, True), (0, False), (2, False)])
def test_a_pipeline_at_another_step_is_no_evidence(stored: int, is_evidence: bool) -> None:
    """G3: pipelines store the timestep of their present step, also after they were stopped."""
    pipe = pipeline()
    clock = watching(pipe)
    pipe.scheduler.set_timesteps(4)
    pipe._current_timestep = pipe.scheduler.timesteps[0]
    assert call(clock).reason is None
    pipe.scheduler.step(0)
    pipe._current_timestep = pipe.scheduler.timesteps[stored]
    assert (call(clock).reason is None) == is_evidence


@pytest.mark.parametrize("calls_of", ["none", "own", "other"])
def test_idle_steps_are_reported_unless_another_model_ran_them(calls_of: str) -> None:
    pipe = pipeline()
    other = pipeline()
    other.scheduler = pipe.scheduler
    clock, of_other = watching(pipe), watching(other)
    pipe.scheduler.set_timesteps(9)

    def run() -> None:
        for _ in range(IDLE_STEPS_FOR_WARNING + 1):
            if calls_of != "none":
                call(clock if calls_of == "own" else of_other)
            pipe.scheduler.step(0)

    if calls_of == "none":
        with pytest.warns(ak.AdaCacheWarning, match="4 steps without a call"):
            run()
    else:
        run()
