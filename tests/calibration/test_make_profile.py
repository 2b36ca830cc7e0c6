"""`make_profile`: its fits, its recorder, its result, and cases that it refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import adacache_kernels as ak
from adacache_kernels import make_profile
from adacache_kernels.calibration.fit_sensitivity import Trial, fit_sensitivity
from adacache_kernels.calibration.make_profile import fit_moreg, random_schedule
from adacache_kernels.calibration.residual_recorder import ResidualRecorder
from adacache_kernels.schedule import Plan
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_profile import STEPS, gram


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


def test_a_calibrated_profile(tiny_profile: Profile) -> None:
    assert tiny_profile.num_steps == STEPS
    assert np.trace(tiny_profile.gram) == pytest.approx(STEPS)
    assert list(tiny_profile.span_grams) == ["blocks"]
    assert np.allclose(tiny_profile.span_grams["blocks"], tiny_profile.gram)
    assert (tiny_profile.sensitivity > 0).all()
    assert tiny_profile.notes["cases"] == 3
    assert tiny_profile.notes["trials"] == 18
    assert tiny_profile.scheduler is None


def test_calibration_leaves_the_model_unpatched() -> None:
    model = TINY["wan"].build()

    def fail(case: int) -> Any:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        make_profile(model, [1, 2], fail, num_inference_steps=STEPS)
    assert not ak.is_patched(model)


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
