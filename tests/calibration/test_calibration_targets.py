"""The result of `calibrate` for a target.

Seconds are not measured: a forward call takes 1 if the blocks run, else 0.1.
"""

from __future__ import annotations

import pytest

from adacache_kernels import Calibration
from adacache_kernels.calibration.choose_codebook import is_harder_with_motion
from adacache_kernels.config.calibration_file import Target
from adacache_kernels.schedule.codebook import Codebook
from tests.support.tiny_calibration import (
    COMPUTED,
    REUSED,
    STEPS,
    calibrated,
)

pytestmark = pytest.mark.usefixtures("seconds")


def speedup(computed: int) -> float:
    return STEPS / (COMPUTED * computed + REUSED * (STEPS - computed))


def test_a_speedup_is_reached_by_a_profile(faster: Calibration) -> None:
    assert faster.kind == "profile" and faster.profile is not None
    assert faster.target == Target("speedup", 2.0)
    # Of 12 steps 5 or 6 are computed: 2.11 or 1.82.
    assert abs(faster.missed) < 0.1
    assert faster.held_out.cases == 1 and faster.notes["cases"] == 3
    assert faster.held_out.speedup == pytest.approx(speedup(round(faster.held_out.computed_steps)))
    assert faster.held_out.worst_psnr == faster.held_out.psnr > 20
    assert {"computed_steps", "correct", "forecast", "num_inference_steps"} == set(faster.settings)


def test_a_speedup_is_reached_by_a_codebook(plain: Calibration) -> None:
    assert plain.profile is None and plain.held_out.cases == 2
    # The fitted cases compute 6 steps of 12; one step more or less gives 1.6 or 2.11.
    assert plain.notes["tried"][0][1] == pytest.approx(speedup(6), rel=1e-3)
    assert speedup(7) / 1.8 - 1 <= plain.missed <= speedup(5) / 1.8 - 1 + 1e-9
    codebook = plain.config().codebook
    assert isinstance(codebook, Codebook) and codebook.rates[-1] == 1
    assert plain.config().forecast == 0
    low, high = min(plain.notes["held_out_computed"]), max(plain.notes["held_out_computed"])
    assert low <= plain.held_out.computed_steps <= high
    assert plain.held_out.slowest == pytest.approx(speedup(high))


def test_more_quality_takes_more_steps(faster: Calibration) -> None:
    low = faster.held_out.psnr
    calibrations = [
        calibrated(target_psnr=low + more, profile=faster, held_out=[7, 8]) for more in (-3, 12)
    ]
    assert calibrations[0].held_out.computed_steps < calibrations[1].held_out.computed_steps
    assert calibrations[0].held_out.psnr < calibrations[1].held_out.psnr
    for one in calibrations:
        assert one.missed == pytest.approx(one.held_out.psnr - one.target.value)
        values = [value for _, value in one.notes["tried"]]
        # The best comes first, and gives the settings.
        assert min(abs(value - one.target.value) for value in values) == pytest.approx(
            abs(values[0] - one.target.value)
        )
        assert one.settings["computed_steps"] == one.notes["tried"][0][0]


def test_it_reports_its_progress_and_its_result() -> None:
    reports: list[tuple[str, int, int]] = []
    result = calibrated(target_speedup=2.0, rounds=1, progress=lambda *now: reports.append(now))
    names = list(dict.fromkeys(doing for doing, _, _ in reports))
    assert names == ["full generations", "random schedules", "costs of steps",
                     "round 1 of at most 1", "held-out cases"]  # fmt: skip
    assert reports[-1] == ("held-out cases", 1, 1)
    assert f"profile for 2x: {100 * result.missed:+.1f} % on 1 held-out cases" in str(result)


def test_motion_regularisation_only_where_hardness_follows_motion() -> None:
    motions = [0.1, 0.2, 0.4, 0.8, 1.6]
    assert is_harder_with_motion(motions, [-40, -36, -35, -30, -28])
    assert not is_harder_with_motion(motions, [-30, -36, -35, -31, -30])
    assert not is_harder_with_motion(motions, [-28, -30, -35, -36, -40])
    assert not is_harder_with_motion([0.3] * 5, [-28, -30, -35, -36, -40])
