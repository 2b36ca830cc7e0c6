"""Wrong arguments of `calibrate`, and outcomes that it cannot judge."""

from __future__ import annotations

import math
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels import Calibration, Profile, calibrate
from adacache_kernels.calibration.request import draw_held_out
from tests.support.tiny_calibration import STEPS, TINY_WAN, calibrated, denoising

pytestmark = pytest.mark.usefixtures("seconds")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "target_speedup is None and target_psnr None; give one of the two"),
        ({"target_speedup": 2.0, "target_psnr": 40.0}, "target_psnr 40.0; give one of the two"),
        ({"target_speedup": 1.0}, "target_speedup is 1.0; it must be above 1"),
        ({"target_speedup": math.inf}, "target_speedup is inf"),
        ({"target_psnr": 120.0}, "target_psnr is 120.0; it must be in dB"),
        ({"target_speedup": 2.0, "kind": "table"}, "kind is 'table'; it may be one of 'profile'"),
        ({"target_speedup": 2.0, "held_out": []}, "4 cases to calibrate with and 0 held-out"),
        ({"target_speedup": 2.0, "codebook": "fast"}, "codebook: calibration sets"),
        ({"target_speedup": 2.0, "trials": 0}, "trials is 0"),
        ({"target_speedup": 2.0, "rounds": 0}, "rounds is 0"),
        ({"target_speedup": 2.0, "peak": 0.0}, "peak is 0.0; it must be above 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrated(**arguments)


def test_a_target_that_is_no_number() -> None:
    with pytest.raises(TypeError, match="target_speedup is '2x'; it must be a number"):
        calibrated(target_speedup="2x")


def test_too_few_cases() -> None:
    model = TINY_WAN.build()
    with pytest.raises(ValueError, match="1 cases to calibrate with and 1 held-out ones"):
        calibrate(model, [1, 2], denoising(model), target_speedup=2.0)


def test_a_quarter_is_drawn_at_random() -> None:
    fitted, held = draw_held_out(list(range(20)), seed=0)
    assert len(held) == 5 and sorted(fitted + held) == list(range(20))
    assert held != list(range(15, 20)) and fitted == sorted(fitted)
    assert draw_held_out(list(range(20)), seed=0) == (fitted, held)
    assert draw_held_out(list(range(20)), seed=1) != (fitted, held)


def test_outcomes_that_cannot_be_judged() -> None:
    model = TINY_WAN.build()
    settings: dict[str, Any] = dict(target_speedup=2.0, num_inference_steps=STEPS)
    run = denoising(model)
    with pytest.raises(ValueError, match=r"has values from .*; generate frames in 0 to 1"):
        calibrate(model, range(4), lambda seed: 9 * run(seed), **settings)
    with pytest.raises(ValueError, match="the outcome of 0 is not finite"):
        calibrate(model, range(4), lambda seed: math.inf * run(seed), **settings)
    with pytest.raises(ValueError, match="a generation of 4 steps is too short"):
        short = settings | {"num_inference_steps": 4}
        calibrate(model, range(4), denoising(model, 4), **short)
    assert not ak.is_patched(model)


def test_a_profile_of_something_else(faster: Calibration, plain: Calibration) -> None:
    with pytest.raises(ValueError, match=r"profile is Calibration.*, which has none"):
        calibrated(target_speedup=2.0, profile=plain)
    profile = faster.profile
    assert profile is not None
    other = Profile.from_dict(profile.to_dict() | {"model": {"class": "Other", "config": {}}})
    message = "profile is for another model: class 'Other', .* or without profile="
    reports: list[str] = []
    with pytest.raises(ValueError, match=message):
        calibrated(target_speedup=2.0, profile=other, progress=lambda *now: reports.append(now[0]))
    # The first generation shows it.
    assert reports == []


def test_a_codebook_needs_distances() -> None:
    with pytest.raises(ValueError, match="no distances of a metric block were measured"):
        calibrated(target_speedup=2.0, kind="codebook", measure="forecast-error")
