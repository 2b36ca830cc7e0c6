"""Profiles: calibration, files, plans, the policy, and refusals of what does not fit."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adacache_kernels as ak
from adacache_kernels import make_profile
from adacache_kernels.calibration.fit_sensitivity import Trial, fit_sensitivity
from adacache_kernels.calibration.make_profile import fit_moreg, random_schedule
from adacache_kernels.calibration.residual_recorder import ResidualRecorder
from adacache_kernels.demo.pipeline import load_pipeline
from adacache_kernels.demo.run import generate
from adacache_kernels.schedule import Decision, FittedForecast, Plan, ProfilePolicy
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 12
PROFILES = Path(ak.__file__).parent / "demo" / "profiles"


def gram(steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """Return the inner products of residuals that drift along a random curve: [steps, steps]."""
    draw = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps)[:, None]
    rows = sum(time**power * draw.normal(size=(1, 400)) for power in range(5))
    rows = rows + 0.02 * draw.normal(size=(steps, 400))
    return np.asarray(rows @ rows.T)


def sensitivity(steps: int = STEPS) -> np.ndarray:
    return np.exp(2 * np.sin(np.linspace(0, 5, steps)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(gram(), sensitivity(), 1)


@pytest.fixture(scope="module")
def calibrated() -> Profile:
    """Calibrate a profile of a tiny model."""
    tiny = TINY["wan"]
    model = tiny.build()

    def run(seed: int) -> Any:
        latents = tiny.noise(seed=seed)
        with torch.no_grad():
            for step in range(1, STEPS + 1):
                latents = latents - 0.05 * tiny.call(model, latents, step)
        return latents

    return make_profile(model, range(3), run, trials=6, num_inference_steps=STEPS)


def test_the_cost_of_an_interval_is_the_error_of_its_forecasts(plan: Plan) -> None:
    """The cost equals the summed errors of the forecasts."""
    forecast, products = FittedForecast(1, gram()), gram()
    steps = [1, 2, 5, 8, 12]
    result = dict(plan.intervals(steps))
    for before, start, end in zip(steps, steps[1:], steps[2:], strict=False):
        missed = sum(
            (forecast.error([start, before], j) for j in range(start + 1, end)), np.zeros(STEPS)
        )
        expected = sensitivity()[end - 1] * (missed @ products @ missed)
        assert result[end] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("price", [1e-2, 1.0, 30.0, 1e3])
def test_the_plan_is_the_best_of_all_schedules(plan: Plan, price: float) -> None:
    """Compare with every schedule that computes the last two steps."""
    inner = range(2, STEPS - 1)
    longest = max(2, math.ceil(0.28 * STEPS))
    best = math.inf
    for count in range(len(inner) + 1):
        for chosen in itertools.combinations(inner, count):
            steps = [1, *chosen, STEPS - 1, STEPS]
            if max(b - a for a, b in itertools.pairwise(steps)) <= longest:
                cost = sum(c for _, c in plan.intervals(steps)) + price * len(steps)
                best = min(best, cost)
    steps = plan.schedule(price)
    result = sum(cost for _, cost in plan.intervals(steps)) + price * len(steps)
    assert result == pytest.approx(best, rel=1e-9)


def test_a_higher_price_computes_no_more_steps(plan: Plan) -> None:
    counts = [len(plan.schedule(price)) for price in np.geomspace(1e-4, 1e6, 40)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == STEPS
    assert counts[-1] == plan.fewest


@pytest.mark.parametrize("count", [5, 8, 12])
def test_a_price_for_a_number_of_steps(plan: Plan, count: int) -> None:
    assert abs(len(plan.schedule(plan.price_for(count))) - count) <= 1


@pytest.mark.parametrize("count", [1, 13])
def test_a_number_of_steps_that_no_plan_has(plan: Plan, count: int) -> None:
    with pytest.raises(ValueError, match=f"computed_steps is {count}"):
        plan.price_for(count)


def follow(plan: Plan, error: float, adaptivity: float, **settings: Any) -> list[int]:
    """Return the computed steps of a video with `error` times the expected forecast errors."""
    policy = ProfilePolicy(
        plan, plan.price_for(7), lambda history, step: 0.1, adaptivity, **settings
    )
    steps: list[int] = []
    last = None
    for step in range(1, STEPS + 1):
        if not policy.compute(step, last):
            continue
        distance = 0.1 * error / (step - steps[-1]) if steps else None
        steps.append(step)
        last = Decision(step, 1, distance, distance, 1.0)
        policy.observe(last)
    return steps


def test_an_average_video_follows_the_plan(plan: Plan) -> None:
    assert follow(plan, 1.0, 1.0) == follow(plan, 30.0, 0.0)
    assert abs(len(follow(plan, 1.0, 1.0)) - 7) <= 1


def test_a_harder_video_gets_more_steps(plan: Plan) -> None:
    counts = [len(follow(plan, error, 1.0)) for error in (0.01, 1.0, 100.0)]
    assert counts[0] < counts[1] < counts[2]


def test_limits_of_a_plan(plan: Plan) -> None:
    assert follow(plan, 1.0, 1.0, longest=1) == list(range(1, STEPS + 1))
    assert follow(plan, 1.0, 1.0, warmup_steps=5)[:5] == [1, 2, 3, 4, 5]


def test_a_computed_step_follows_an_error_that_is_not_finite(plan: Plan) -> None:
    policy = ProfilePolicy(plan, 1e9, lambda history, step: 0.1, 1.0)
    policy.observe(Decision(1, 1, None, None, 1.0))
    assert not policy.compute(2, Decision(1, 1, None, None, 1.0))
    bad = Decision(4, 1, None, None, 1.0, not_finite=True)
    policy.observe(bad)
    assert policy.compute(5, bad)


def test_a_planted_sensitivity_is_found() -> None:
    """Errors with a known sensitivity and 1 dB of noise: it is fitted within a factor of two.

    The sensitivity has a range of 50. The first and last knots are excluded: few intervals
    determine them.
    """
    steps = 30
    draw = np.random.default_rng(0)
    truth = np.exp(2 * np.sin(np.linspace(0, 6, steps)))
    plan = Plan(gram(steps), np.ones(steps), 1)
    exact = Plan(gram(steps), truth, 1)
    pick = random.Random(0)
    trials = []
    for index in range(300):
        schedule = random_schedule(plan, pick)
        error = sum(cost for _, cost in exact.intervals(schedule))
        hardness = (index % 4) - 2.0
        noise = draw.normal(scale=0.1)
        trials.append(Trial(index % 4, schedule, error * 10 ** (hardness + noise)))
    fitted, hardness, unexplained = fit_sensitivity(plan, trials)
    ratio = fitted / truth
    ratio /= np.exp(np.log(ratio[5:-5]).mean())
    assert np.all(np.abs(np.log2(ratio[5:-5])) < 1)
    assert np.diff(hardness) == pytest.approx([10, 10, 10], abs=1)
    assert unexplained < 2


def test_the_recorder_has_inner_products_of_the_sum_of_all_lists() -> None:
    draw = torch.Generator().manual_seed(0)
    steps = [
        {name: torch.randn(1, 4, 6, 8, generator=draw) for name in ("a", "b")} for _ in range(5)
    ]
    everything, sample = ResidualRecorder(10**6), ResidualRecorder(100)
    for step in steps:
        everything.take("0", step)
        sample.take("0", step)
    rows = torch.stack([(s["a"] + s["b"]).flatten() for s in steps]).double()
    total, each = everything.grams()
    assert np.allclose(total, (rows @ rows.T).numpy(), rtol=1e-6)
    only_a = torch.stack([s["a"].flatten() for s in steps]).double()
    assert np.allclose(each["a"], (only_a @ only_a.T).numpy(), rtol=1e-6)
    sampled, _ = sample.grams()
    # 100 of 192 elements: squares of a sum of two normals have a deviation of 2.8 around 2.
    assert np.diag(sampled) / 100 == pytest.approx(np.full(5, 2.0), abs=5 * 2.8 / 10)
    twice = ResidualRecorder(100)
    for step in (steps[0], steps[0]):
        twice.take("0", step)
    # Every step samples the same elements.
    assert np.ptp(twice.grams()[0]) == 0
    video = steps[0]["b"]
    changes = float((video[:, 1:] - video[:, :-1]).abs().sum())
    size = float(video[:, 1:].abs().sum() + video[:, :-1].abs().sum())
    assert everything.motion[0] == pytest.approx(changes / size)


def test_motion_regularization_is_fitted() -> None:
    motions = np.array([0.1, 0.2, 0.4, 0.8])
    a, b, d = fit_moreg(motions, 20 * 0.7 * np.log10(motions) + 3)
    assert (b, d) == (pytest.approx(0.7), 1)
    assert a == pytest.approx(float(np.exp(np.log(motions).mean())))
    assert fit_moreg(motions, -motions)[1] == 0
    assert fit_moreg([0.0, 0.0], np.array([1.0, 2.0])) == (1.0, 0.0, 1.0)


def test_a_calibrated_profile(calibrated: Profile) -> None:
    assert calibrated.num_steps == STEPS
    assert np.trace(calibrated.gram) == pytest.approx(STEPS)
    assert list(calibrated.span_grams) == ["blocks"]
    assert np.allclose(calibrated.span_grams["blocks"], calibrated.gram)
    assert (calibrated.sensitivity > 0).all()
    assert calibrated.notes["cases"] == 3
    assert calibrated.notes["trials"] == 18
    assert calibrated.scheduler is None


def test_a_profile_is_saved_and_loaded(calibrated: Profile, tmp_path: Path) -> None:
    calibrated.save(tmp_path / "p.json")
    loaded = Profile.load(tmp_path / "p.json")
    assert np.allclose(loaded.gram, calibrated.gram, rtol=1e-8)
    assert loaded.notes == json.loads(json.dumps(calibrated.notes))
    assert loaded.plan(1).schedule(1e-3) == calibrated.plan(1).schedule(1e-3)


def test_a_model_runs_with_its_profile(calibrated: Profile, tmp_path: Path) -> None:
    tiny = TINY["wan"]
    calibrated.save(tmp_path / "p.json")
    settings: dict[str, Any] = dict(
        forecast=1, correct=True, computed_steps=6, num_inference_steps=STEPS
    )
    runs = []
    for given in (calibrated, tmp_path / "p.json", str(tmp_path / "p.json"), calibrated.to_dict()):
        model = ak.patch(tiny.build(), profile=given, **settings)
        runs.append(denoise(tiny, model, STEPS)[-1])
        summary = ak.summary(model)
        assert 4 <= len(summary.computed_steps) <= 8
        json.dumps(summary.to_dict())
    # Inner products are saved to nine digits.
    assert all(torch.allclose(run, runs[0], atol=1e-5) for run in runs)


def test_the_expected_error_is_that_of_a_calibration_case(calibrated: Profile) -> None:
    """On the calibrated model, measured and expected errors agree within a factor of 2."""
    tiny = TINY["wan"]
    model = ak.patch(
        tiny.build(), profile=calibrated, forecast=1, computed_steps=6, num_inference_steps=STEPS
    )
    denoise(tiny, model, STEPS)
    summary = ak.summary(model)
    history: list[int] = []
    for step, distance in zip(summary.computed_steps, summary.distances, strict=True):
        if distance is not None:
            expected = calibrated.expected_error(1, history, step)
            assert 0.5 < distance * (step - history[0]) / expected < 2
        history.insert(0, step)


def test_motion_regularization_has_the_profiles_constants(calibrated: Profile) -> None:
    config = ak.AdaCacheConfig(profile=calibrated, computed_steps=6, apply_moreg=True)
    assert (config.metric, config.measured_metric) == ("l1", "l2")
    assert config.measure == "forecast-error"
    assert config.moreg == (*calibrated.moreg_hyp, 0.0)
    given = ak.AdaCacheConfig(
        profile=calibrated, computed_steps=6, moreg_hyp=(0.2, 1.0, 1.0), mograd_mul=3.0
    )
    assert given.moreg == (0.2, 1.0, 1.0, 3.0)


def test_a_motion_score_scales_the_errors(calibrated: Profile) -> None:
    """A motion score of 30 in every step acts like errors 30 times as large."""
    tiny, counts = TINY["wan"], []
    for hyp in ((1.0, 0.0, 1.0), (1.0, 0.0, 1 / 30)):
        model = ak.patch(
            tiny.build(),
            profile=calibrated,
            forecast=1,
            computed_steps=6,
            apply_moreg=True,
            moreg_hyp=hyp,
            moreg_steps=(1, STEPS),
            num_inference_steps=STEPS,
        )
        denoise(tiny, model, STEPS)
        summary = ak.summary(model)
        counts.append(len(summary.computed_steps))
        gaps = [b - a for a, b in itertools.pairwise(summary.computed_steps)]
        rates = [rate for rate in summary.rates[:-1] if rate is not None]
        # The last steps are not measured: no reused step can follow them.
        assert len(rates) >= len(gaps) - 2
        assert rates == gaps[: len(rates)]
        assert summary.codebook == []
    assert counts[0] < counts[1]


def test_calibration_leaves_the_model_unpatched() -> None:
    model = TINY["wan"].build()

    def fail(case: int) -> Any:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        make_profile(model, [1, 2], fail, num_inference_steps=STEPS)
    assert not ak.is_patched(model)


def test_a_profile_of_something_else_is_refused(calibrated: Profile) -> None:
    settings: dict[str, Any] = dict(profile=calibrated, computed_steps=6)
    with pytest.raises(ValueError, match="another model: class 'WanTransformer3DModel'"):
        ak.patch(TINY["latte"].build(), num_inference_steps=STEPS, **settings)
    with pytest.raises(ValueError, match="12 steps and this generation has 20"):
        ak.patch(TINY["wan"].build(), num_inference_steps=20, **settings)
    model = TINY["wan"].build()
    assert not ak.is_patched(model)
    other = TINY["wan"].build()
    other.register_to_config(num_layers=30)
    with pytest.raises(ValueError, match="num_layers 3, here 30"):
        ak.patch(other, num_inference_steps=STEPS, **settings)


def test_a_profile_of_another_scheduler_or_number_of_steps_is_refused_by_a_pipeline() -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe = load_pipeline()
    settings: dict[str, Any] = dict(
        profile=PROFILES / "50.json", computed_steps=17, forecast=1, correct=True
    )
    ak.patch(pipe, **settings)
    with pytest.raises(ValueError, match="50 steps and this generation has 10"):
        generate(pipe, "a white six moving fast", steps=10)
    ak.unpatch(pipe)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=r"another scheduler: .*DDIMScheduler"):
        ak.patch(pipe, **settings)
    assert not ak.is_patched(pipe)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"format": 0}, "its format is 0"),
        ({"gram": [1.0]}, "no profile"),
        ({"sensitivity": [0.0] * STEPS}, "positive"),
        ({"moreg_hyp": [0, 1, 1]}, "moreg_hyp"),
    ],
)
def test_a_broken_profile_is_refused(
    calibrated: Profile, tmp_path: Path, broken: dict[str, Any], message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(calibrated.to_dict() | broken))
    with pytest.raises(ValueError, match=message) as error:
        Profile.load(path)
    assert "broken.json" in str(error.value)


def test_files_that_are_no_profile(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ValueError, match=r"text\.json"):
        ak.AdaCacheConfig(profile=tmp_path / "text.json", computed_steps=3)
    with pytest.raises(FileNotFoundError):
        ak.AdaCacheConfig(profile=tmp_path / "none.json", computed_steps=3)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"forecast": 3}, ValueError, "may be 0, 1 or 2"),
        ({"forecast": 1.0}, TypeError, "forecast is 1.0"),
        ({"forecast_time": "lambda"}, ValueError, "forecast_time is 'lambda'"),
        ({"measure": "error"}, ValueError, "measure is 'error'"),
        ({"correct": 1}, TypeError, "correct is 1"),
        ({"schedule": "1, 2"}, TypeError, "schedule is '1, 2'"),
        ({"schedule": [0]}, ValueError, "schedule is 0"),
        ({"computed_steps": 5}, ValueError, "give profile="),
        ({"adaptivity": 2.0}, ValueError, "adaptivity is 2.0"),
        ({"profile": 3}, TypeError, "profile is 3"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ak.AdaCacheConfig(**settings)


def test_settings_that_do_not_go_with_a_profile(calibrated: Profile) -> None:
    with pytest.raises(ValueError, match="either computed_steps"):
        ak.AdaCacheConfig(profile=calibrated)
    with pytest.raises(ValueError, match="either computed_steps"):
        ak.AdaCacheConfig(profile=calibrated, computed_steps=5, schedule=[1, 4])
    with pytest.raises(ValueError, match="forecasts are fitted"):
        ak.AdaCacheConfig(profile=calibrated, computed_steps=5, forecast_time="sigma")


@pytest.mark.parametrize(
    ("made", "message"),
    [(0.0, "no schedule changed the outcome of 5"), (float("inf"), "outcome of 5 is not finite")],
)
def test_outcomes_without_information(made: float, message: str) -> None:
    tiny = TINY["wan"]
    model = tiny.build()

    def run(seed: int) -> Any:
        with torch.no_grad():
            for step in range(1, STEPS + 1):
                tiny.call(model, tiny.noise(seed=seed), step)
        return torch.tensor([made])

    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        make_profile(model, [5, 6], run, trials=1, num_inference_steps=STEPS)


def test_calibration_chooses_the_steps() -> None:
    with pytest.raises(ValueError, match="schedule: calibration sets"):
        make_profile(TINY["wan"].build(), [1, 2], lambda case: case, schedule=[1, 2])


def test_calibration_needs_cases() -> None:
    with pytest.raises(ValueError, match="there are 1 cases"):
        make_profile(TINY["wan"].build(), [1], lambda case: case)
