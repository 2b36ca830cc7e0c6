"""The parts of `calibrate`: simulations, the search, and the measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adacache_kernels as ak
from adacache_kernels.calibration.checkpoint import Checkpoint
from adacache_kernels.calibration.choose_codebook import best_family
from adacache_kernels.calibration.held_out import RunComparison, held_out_result
from adacache_kernels.calibration.objectives import predicted_psnr
from adacache_kernels.calibration.outcomes import (
    OUTCOME_SAMPLE,
    StoredOutcome,
    capped_psnr,
    squared_error,
)
from adacache_kernels.calibration.record import CalibrationRecording, no_progress, patched, record
from adacache_kernels.calibration.simulate import (
    CodebookFamily,
    ProfileFamily,
    SimulatedCase,
    knob_for,
)
from adacache_kernels.calibration.target_search import Curve, SearchPoint, search
from adacache_kernels.calibration.timed_runs import StepCosts, TimedPair
from adacache_kernels.config.calibration_file import HeldOutResult, Target
from adacache_kernels.schedule import Plan
from tests.support.tiny_calibration import STEPS, TINY_WAN, denoising


@pytest.fixture(scope="module")
def recording() -> CalibrationRecording:
    model = TINY_WAN.build()
    settings = dict(forecast=1, correct=True, num_inference_steps=STEPS)
    stored = Checkpoint(None, {})
    return record(model, range(3), denoising(model), settings, no_progress, stored, distances=True)


def computed_by(settings: dict[str, Any], seed: int) -> list[int]:
    """Return the steps that the engine computes."""
    model = TINY_WAN.build()
    with patched(model, {"num_inference_steps": STEPS, **settings}):
        denoising(model)(seed)
        return ak.summary(model).computed_steps


# Simulations


def test_a_codebook_is_simulated_as_the_engine_runs_it(recording: CalibrationRecording) -> None:
    """Reuse changes the residuals a little, but not the schedules of these seeds."""
    plan = Plan(recording.profile().gram, np.ones(STEPS), 0)
    family = CodebookFamily(plan, recording, 1.0, 4)
    counts = []
    for knob in (knob_for(family, 6), 3.3, 4.2):
        simulated = family.simulate(knob)
        assert [case.steps for case in simulated] == [
            computed_by(family.settings(knob), seed) for seed in range(3)
        ]
        counts.append(statistics.mean(len(case.steps) for case in simulated))
    assert 6 == counts[0] < counts[1] < counts[2] < STEPS


def test_motion_regularisation_is_simulated(recording: CalibrationRecording) -> None:
    plan = Plan(recording.profile().gram, np.ones(STEPS), 0)
    bare = CodebookFamily(plan, recording, 1.0, 4)
    family = bare.with_moreg((0.37, 3.0, 1.0))
    knob = 3.2
    steps = [case.steps for case in family.simulate(knob)]
    assert steps == [computed_by(family.settings(knob), seed) for seed in range(3)]
    assert steps != [case.steps for case in bare.simulate(knob)]


def test_a_profile_is_simulated_as_the_engine_runs_it(recording: CalibrationRecording) -> None:
    settings: dict[str, Any] = dict(forecast=1, correct=True)
    family = ProfileFamily(recording.profile(), recording, settings)
    for knob in (5.0, 7.0):
        assert [case.steps for case in family.simulate(knob)] == [
            computed_by(settings | family.settings(knob), seed) for seed in range(3)
        ]
    costs = [family.simulate(knob)[0].cost for knob in family.knobs()]
    assert costs[0] > costs[-1]


def test_distances_are_those_of_the_engine(recording: CalibrationRecording) -> None:
    model = TINY_WAN.build()
    settings: dict[str, Any] = dict(
        codebook={math.inf: 2},
        apply_moreg=True,
        moreg_hyp=(1.0, 1.0, 1.0),
        mograd_mul=0.0,
        moreg_steps=(1, STEPS),
    )
    with patched(model, {"num_inference_steps": STEPS, **settings}):
        denoising(model)(1)
        summary = ak.summary(model)
    case = recording.cases[1]
    assert case.distances is not None
    # Step 3 is reused, which changes the measurements from then on.
    assert summary.computed_steps[:2] == [1, 2]
    assert summary.raw_distances[1] == pytest.approx(case.distances[0, 1], rel=1e-4)
    assert summary.motion_scores[1] == pytest.approx(case.metric_motion[1], rel=1e-4)
    assert np.diag(case.distances) == pytest.approx(np.zeros(STEPS))


def test_the_shape_with_the_least_error_is_chosen(recording: CalibrationRecording) -> None:
    plan = Plan(recording.profile().gram, np.ones(STEPS), 0)
    families = [CodebookFamily(plan, recording, 1.0, highest) for highest in (2, 9)]
    # With rates up to 2, at least half of the steps are computed.
    assert best_family(families, 5) is families[1]
    # Neither reaches 1 computed step.
    assert best_family(families, 1) is best_family(families[::-1], 1) is families[1]


# The search


def search_for(
    target: Target, truth: Callable[[float], float], rounds: int = 4, first: float = 20.0
) -> list[SearchPoint]:
    """Search with a prediction that is wrong by a factor of 1.3, or by 4 dB."""
    knobs = list(np.geomspace(4, 50, 12))
    if target.of == "speedup":
        predicted = [1.3 * truth(knob) for knob in knobs]
    else:
        predicted = [truth(knob) + 4 for knob in knobs]
    curve = Curve(target, knobs, predicted)
    return search(target, first, lambda: curve, lambda knob: None, truth, rounds)


def test_a_search_corrects_what_is_predicted() -> None:
    points = search_for(Target("speedup", 3.0), lambda knob: 50 / (knob + 0.05 * (50 - knob)))
    assert points[-1].value == pytest.approx(3.0, rel=0.02)
    assert len(points) <= 3
    points = search_for(Target("psnr", 40.0), lambda knob: 20 + 8 * math.log(knob))
    assert points[-1].value == pytest.approx(40.0, abs=0.25)
    assert len(points) <= 3


def test_a_search_ends_with_the_nearest_measured_value() -> None:
    jumps = search_for(Target("psnr", 40.0), lambda knob: 44.0 if knob > 15 else 31.0, rounds=3)
    assert len(jumps) == 3 and jumps[-1].value == 44.0


def test_a_search_without_rounds_left_ends_with_the_first() -> None:
    assert search_for(Target("psnr", 40.0), lambda knob: knob, rounds=1) == [
        SearchPoint(20.0, 20.0)
    ]


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_speedup_that_no_knob_has(rounds: int) -> None:
    def truth(knob: float) -> float:
        return 50 / (knob + 0.03 * (50 - knob))

    with pytest.raises(ValueError, match=r"speedup=30 is out of reach: .*, it was 9\.29x; ask"):
        search_for(Target("speedup", 30.0), truth, rounds, first=4.0)


def test_a_quality_that_no_knob_has_is_refused_after_the_last_knob() -> None:
    with pytest.raises(ValueError, match=r"psnr=90 is out of reach: .*, it was 51\.3 dB; ask"):
        search_for(Target("psnr", 90.0), lambda knob: 20 + 8 * math.log(knob))
    # 52 dB is within 1 dB of the highest value, 51.3 dB: the search ends there.
    points = search_for(Target("psnr", 52.0), lambda knob: 20 + 8 * math.log(knob))
    assert points[-1] == SearchPoint(50.0, pytest.approx(51.3, abs=0.1))


def test_a_quality_below_every_knob_is_exceeded() -> None:
    points = search_for(Target("psnr", 10.0), lambda knob: 20 + 8 * math.log(knob))
    assert points[-1] == SearchPoint(4.0, pytest.approx(31.1, abs=0.1))


def test_knobs_at_which_every_step_is_computed_are_not_chosen() -> None:
    curve = Curve(Target("psnr", 90.0), [4, 20, 50], [30.0, 40.0, math.inf])
    assert curve.nearest([]) == pytest.approx(20)
    with pytest.raises(ValueError, match="every step is computed in most of the cases"):
        Curve(Target("psnr", 90.0), [4, 50], [math.inf] * 2)
    full, half = SimulatedCase([1, 2, 3], 0.0), SimulatedCase([1, 3], 0.01)
    assert predicted_psnr([full, half, half]) == pytest.approx(20)
    assert predicted_psnr([full, full, half]) == math.inf


# Measurements


def test_the_result_of_held_out_cases() -> None:
    """Three pairs compute 2, 3 and 4 of 4 steps; other work slows one of them down."""
    costs, comparisons = StepCosts(), []
    for count, slow in ((2, 1.0), (3, 1.0), (4, 5.0)):
        seconds = [slow] * count + [0.1] * (4 - count)
        pair = TimedPair([1.0] * 4, seconds, list(range(1, count + 1)), 0.0)
        costs.add(pair)
        comparisons.append(RunComparison(pair.speedup, 30.0 + 10 * count, count))
    error = pytest.approx(10 / math.sqrt(3))
    speedup = pytest.approx(4 / 3.1)
    assert held_out_result(comparisons, costs, 4) == HeldOutResult(
        3, speedup, 0.2, 60.0, error, 50.0, 3
    )
    assert held_out_result(comparisons[:1], costs, 4).psnr_error == 0


def test_psnr_with_a_peak() -> None:
    zeros, tenth = np.zeros((2, 3), np.float32), np.full((2, 3), 0.1, np.float32)
    error = squared_error(tenth, zeros)
    assert capped_psnr(error, 1.0) == pytest.approx(20, abs=1e-5)
    assert capped_psnr(error, 255.0) == pytest.approx(20 + 20 * math.log10(255), abs=1e-5)
    assert capped_psnr(0.0, 1.0) == 100
    for compare in (
        squared_error,
        lambda outcome, known: StoredOutcome.of(known).squared_error(outcome),
    ):
        with pytest.raises(ValueError, match=r"shapes \(1, 3\) and \(2, 3\)"):
            compare(zeros[:1], zeros)


def test_a_large_outcome_is_stored_as_a_sample() -> None:
    draw = np.random.default_rng(0)
    large = draw.random((3, OUTCOME_SAMPLE), dtype=np.float32)
    # The deviation of the squared errors is 1.4 times their mean: four standard errors are 6e-3.
    other = large + 0.1 * draw.standard_normal(large.shape, dtype=np.float32)
    stored = StoredOutcome.of(large)
    assert stored.values.size == OUTCOME_SAMPLE and stored.shape == large.shape
    assert (stored.lowest, stored.highest) == (large.min(), large.max())
    assert stored.squared_error(large) == 0
    assert stored.squared_error(other) == pytest.approx(squared_error(other, large), rel=6e-3)
    assert StoredOutcome.of(large[0]).squared_error(other[0]) == pytest.approx(
        squared_error(other[0], large[0]), rel=1e-6
    )


def test_costs_are_parts_of_the_generation_right_before() -> None:
    """The second pair ran at half the speed, and gives the same costs."""
    costs = StepCosts()
    for slow in (1.0, 2.0):
        seconds = [slow * s for s in (1.2, 1.2, 0.1, 1.2)]
        costs.add(TimedPair([slow] * 4, seconds, [1, 2, 4], 0.0))
    assert costs.speedup(4, 3) == pytest.approx(4 / 3.7)
    assert costs.speedup(4, 4) == pytest.approx(4 / 4.8)
    assert costs.computed_for(4, 4 / 3.7) == pytest.approx(3)
    assert costs.computed_for(4, 100) == 0 and costs.computed_for(4, 0.5) == 4
    costs.add(TimedPair([1.0] * 4, [1.0, 1.0, 2.0, 1.0], [1, 2, 4], 0.0))
    costs.reused = [1.3]
    assert costs.computed_for(4, 2.0) == 0
