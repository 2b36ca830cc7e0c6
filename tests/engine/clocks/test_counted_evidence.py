"""Rules E4 and E5: the values of timesteps, and the number of calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adacache_kernels.engine.clocks.clock import Call
from adacache_kernels.engine.clocks.step_clock import StepClock
from adacache_kernels.engine.evidence.call_evidence import readable_time
from tests.engine.clocks.calls import call, places

COND, UNCOND = torch.ones(2), torch.zeros(2)


def trailing(steps: int) -> list[float]:
    """Return timesteps from 1000 down to one stride above 0."""
    return [1000.0 * (steps - i) / steps for i in range(steps)]


def leading(steps: int) -> list[float]:
    """Return timesteps from one stride below 1000 down to 0."""
    return [1000.0 * (steps - 1 - i) / steps for i in range(steps)]


def shifted(steps: int, shift: float) -> list[float]:
    """Return timesteps of flow matching, as Wan and HunyuanVideo shift them."""
    parts = [(steps - i) / steps for i in range(steps)]
    return [1000 * shift * part / (1 + (shift - 1) * part) for part in parts]


def clocked(times: list[float], calls_per_step: int | None = None) -> list[Call]:
    clock = StepClock(calls_per_step=calls_per_step)
    return [call(clock, timestep=torch.tensor([time])) for time in times]


@pytest.mark.parametrize("times", [trailing(12), leading(12), [t / 1000 for t in trailing(12)]])
def test_the_last_two_steps_are_near_the_end(times: list[float]) -> None:
    near = [c.step for c in clocked(times) if c.near_end]
    assert near[-2:] == [11, 12] and near[0] >= 10


def test_rising_timesteps_end_at_one_or_at_a_thousand() -> None:
    for scale in (1.0, 1000.0):
        near = [c.step for c in clocked([scale * i / 12 for i in range(12)]) if c.near_end]
        assert near[-2:] == [11, 12] and near[0] >= 10


@pytest.mark.parametrize("steps, shift", [(20, 3), (20, 5), (30, 3), (30, 5), (30, 7), (50, 7)])
def test_the_last_two_of_shifted_steps(steps: int, shift: float) -> None:
    near = [c.step for c in clocked(shifted(steps, shift)) if c.near_end]
    assert near[-2:] == [steps - 1, steps] and near[0] >= 0.8 * steps


@pytest.mark.parametrize("times", [trailing(6), [i / 6 for i in range(6)]])
def test_a_generation_begins_where_timesteps_turn_back(times: list[float]) -> None:
    """G1."""
    calls = clocked(times * 3)
    assert [c.step for c in calls] == [1, 2, 3, 4, 5, 6] * 3
    assert [c.first_in_generation for c in calls] == [True, *[False] * 5] * 3


@pytest.mark.parametrize("stopped_at", [1, 2, 3])
@pytest.mark.parametrize("first", [1000.0, 900.0])
def test_a_stopped_run_before_another_one(stopped_at: int, first: float) -> None:
    """G1: the second run may begin elsewhere, as video to video does."""
    times = trailing(20)
    calls = clocked([*times[10 : 10 + stopped_at], first, first - 50, first - 100])
    assert [c.step for c in calls[stopped_at:]] == [1, 2, 3]


def test_a_first_stride_that_no_schedule_has_begins_a_generation() -> None:
    """G1."""
    assert [c.step for c in clocked([1000.0, 600.0, 560.0])] == [1, 1, 2]
    # Rising timesteps begin in the lower half.
    assert [c.step for c in clocked([600.0, 800.0])] == [1, 1]
    assert [c.step for c in clocked([400.0, 600.0])] == [1, 2]


def test_steps_beyond_the_given_number_are_computed() -> None:
    """G5."""
    clock = StepClock(num_steps=4)
    calls = [call(clock, timestep=torch.tensor([t])) for t in trailing(6)]
    assert [c.reason is None for c in calls] == [True] * 4 + [False] * 2


def test_a_shorter_run_than_given_is_reported() -> None:
    clock = StepClock(num_steps=12)
    for time in trailing(8) * 2:
        call(clock, timestep=torch.tensor([time]))
    assert [notice.topic for notice in clock.take_notices()] == ["number of steps"]


def test_two_calls_a_step_as_given() -> None:
    calls = clocked([time for time in trailing(4) for _ in range(2)] * 2, calls_per_step=2)
    assert places(calls) == [(s, b) for s in (1, 2, 3, 4) for b in ("0", "1")] * 2


def test_two_calls_at_one_timestep_are_computed_unless_their_number_was_given() -> None:
    """B5: a second-order solver (Heun) repeats all timesteps but the first and the last."""
    times = [1000.0, *(t for t in trailing(8)[1:] for _ in range(2))]
    calls = clocked(times)
    assert [c.first_in_generation for c in calls].count(True) == 1
    assert all(c.reason is not None for c in calls[2:])
    assert [c.step for c in clocked(times, calls_per_step=1)] == list(range(1, len(times) + 1))


def test_timesteps_that_can_be_read_without_waiting() -> None:
    assert readable_time(torch.tensor([900, 930])) == 915
    assert readable_time(0.5) == 0.5
    assert readable_time([torch.tensor(3.0)]) == 3.0
    assert readable_time(torch.ones(1, device="meta")) is None
    assert readable_time(None) is readable_time(True) is readable_time(torch.zeros(0)) is None


def counted(clock: StepClock, texts: list[Tensor], timestep: Tensor | None = None) -> list[Call]:
    """Return calls whose timesteps are on a device."""
    return [call(clock, timestep=timestep, text=text) for text in texts]


def on_device() -> Tensor:
    return torch.ones(1, device="meta")


def test_each_call_is_a_step_if_nothing_else_shows_it() -> None:
    clock = StepClock(num_steps=2)
    calls = [call(clock) for _ in range(5)]
    assert [c.step for c in calls] == [1, 2, 1, 2, 1]
    assert [c.first_in_generation for c in calls] == [True, False, True, False, True]


def test_calls_with_other_conditions_are_branches_of_the_step() -> None:
    """B3."""
    calls = counted(StepClock(num_steps=3), [COND, UNCOND] * 4)
    assert places(calls) == [(s, b) for s in (1, 2, 3, 1) for b in ("0", "1")]


def test_a_context_that_comes_again_begins_a_step() -> None:
    clock = StepClock(num_steps=3)
    names = ["cond", "uncond", "cond", "uncond", "uncond", "cond"]
    assert [call(clock, name).step for name in names] == [1, 1, 2, 2, 3, 3]


def test_a_name_whose_conditions_change_begins_a_step() -> None:
    """B4."""
    clock = StepClock(num_steps=3)
    calls = [call(clock, "cond", text=COND * scale) for scale in (1, 2, 3)]
    assert places(calls) == [(1, "cond"), (2, "cond"), (3, "cond")]


def test_named_generations_are_counted_apart() -> None:
    clock = StepClock(num_steps=3)
    calls = [call(clock, "cond", generation=key) for key in "abbaab"]
    assert [c.step for c in calls] == [1, 1, 2, 2, 3, 3] and not any(c.reason for c in calls)


def test_a_prompt_that_changes_while_calls_are_counted() -> None:
    """B4: the timestep tensor tells a new step from another branch of the same step."""
    clock = StepClock(num_steps=6)
    calls = []
    for step in range(5):
        timestep, text = on_device(), COND if step < 3 else COND * 2
        calls += counted(clock, [text, UNCOND], timestep)
    assert places(calls) == [(s, b) for s in (1, 2, 3, 4, 5) for b in ("0", "1")]
    assert calls[6].notice is not None and calls[6].conditions != calls[4].conditions


def test_a_timestep_that_is_written_in_inference_mode_shows_no_step() -> None:
    """B4: such a tensor does not count its writes."""
    clock = StepClock(num_steps=6)
    with torch.inference_mode():
        timestep = on_device()
    texts = [COND, COND, COND * 2]
    calls = [c for text in texts for c in counted(clock, [text, UNCOND], timestep)]
    assert places(calls) == [(s, b) for s in (1, 2, 3) for b in ("0", "1")]


def test_without_a_number_of_steps_nothing_is_evidence() -> None:
    """G6."""
    assert all(c.reason is not None for c in counted(StepClock(), [COND] * 3, on_device()))


def test_a_failed_call_that_is_counted_ends_the_evidence() -> None:
    """G4."""
    clock = StepClock(num_steps=3)
    call(clock)
    (track,) = clock._tracks.values()
    clock.forget_call(track, "0")
    calls = [call(clock) for _ in range(4)]
    assert [c.reason is None for c in calls] == [False, False, False, True]


def test_restart() -> None:
    clock = StepClock(num_steps=5)
    call(clock)
    call(clock)
    clock.restart()
    assert call(clock).first_in_generation
