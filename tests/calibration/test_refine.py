"""Schedules refined by direct search: which moves are measured, accepted and counted."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels import Calibration
from adacache_kernels.calibration.outcomes import as_array, capped_psnr, squared_error
from adacache_kernels.calibration.refine_schedule import GAIN, refine_schedule
from tests.support.tiny_calibration import STEPS, TINY_WAN, calibrated, denoising

pytestmark = pytest.mark.usefixtures("seconds")
EVEN = [1, 5, 9, 13, 17, 19, 20]
BEST = [1, 3, 4, 10, 16, 19, 20]


def nearness(steps: list[int]) -> float:
    return -float(sum(abs(step - best) for step, best in zip(steps, BEST, strict=True)))


def test_steps_move_to_where_they_are_best() -> None:
    refined = refine_schedule(nearness, EVEN, sweeps=3)
    assert refined.steps == BEST
    assert (refined.before, refined.after) == (nearness(EVEN), 0.0)


def test_the_first_and_the_last_two_steps_stay() -> None:
    measured: list[list[int]] = []

    def earlier(steps: list[int]) -> float:
        measured.append(steps)
        return -float(sum(steps))

    refined = refine_schedule(earlier, EVEN, sweeps=9)
    assert refined.steps == [1, 2, 3, 4, 5, 19, 20]
    assert all(steps[0] == 1 and steps[-2:] == [19, 20] for steps in measured)
    assert all(steps == sorted(set(steps)) for steps in measured)
    assert refined.measured == len({tuple(steps) for steps in measured}) == len(measured)


def test_a_sweep_goes_over_each_step_once() -> None:
    """A step that its neighbour blocks moves in the next sweep."""
    start, best = [1, 5, 6, 19, 20], [1, 6, 8, 19, 20]

    def near(steps: list[int]) -> float:
        return -float(sum(abs(step - goal) for step, goal in zip(steps, best, strict=True)))

    assert refine_schedule(near, start, sweeps=1).steps == [1, 5, 8, 19, 20]
    assert refine_schedule(near, start, sweeps=2).steps == best


def test_moves_with_a_negligible_gain_are_rejected() -> None:
    def slightly(steps: list[int]) -> float:
        return nearness(steps) * 0.9 * GAIN

    refined = refine_schedule(slightly, EVEN, sweeps=3)
    assert refined.steps == EVEN and refined.before == refined.after


def mean_psnr(calibration: Calibration, cases: range, **settings: Any) -> float:
    qualities = []
    for seed in cases:
        model = TINY_WAN.build()
        full = as_array(denoising(model)(seed))
        ak.patch(model, calibration, num_inference_steps=STEPS, **settings)
        error = squared_error(as_array(denoising(model)(seed)), full)
        qualities.append(capped_psnr(error, 1.0))
    return statistics.mean(qualities)


def test_calibrate_refines_its_schedule() -> None:
    calibration = calibrated(target_speedup=2.0, rounds=2, refine=2)
    notes = calibration.notes["refine"]
    assert notes["refined"] > notes["planned"], "otherwise this test proves nothing"
    assert notes["schedules"] > 4
    assert "computed_steps" not in calibration.settings
    schedule = calibration.settings["schedule"]
    assert schedule[0] == 1 and tuple(schedule[-2:]) == (STEPS - 1, STEPS)
    assert mean_psnr(calibration, range(3)) == pytest.approx(notes["refined"], abs=0.01)
    assert calibration.held_out.computed_steps == len(schedule)
    again = Calibration.from_dict(calibration.to_dict())
    assert tuple(again.settings["schedule"]) == tuple(schedule)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(target_psnr=40.0, refine=1), r'refine is 1, with target 40 dB and kind="profile"'),
        (dict(target_speedup=2.0, refine=1, kind="codebook"), r"refine is 1, .* give target_speed"),
        (dict(target_speedup=2.0, refine=-1), r"refine is -1"),
    ],
)
def test_what_cannot_be_refined(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrated(**arguments)
