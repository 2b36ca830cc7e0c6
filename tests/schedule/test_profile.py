"""Profiles: files, a model that runs with one, and settings and models that do not fit."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.demo.pipeline import load_pipeline
from adacache_kernels.demo.run import generate
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_profile import STEPS

PROFILES = Path(ak.__file__).parent / "demo" / "profiles"


def test_a_profile_is_saved_and_loaded(tiny_profile: Profile, tmp_path: Path) -> None:
    tiny_profile.save(tmp_path / "p.json")
    loaded = Profile.load(tmp_path / "p.json")
    assert np.allclose(loaded.gram, tiny_profile.gram, rtol=1e-8)
    assert loaded.notes == json.loads(json.dumps(tiny_profile.notes))
    assert loaded.plan(1).schedule(1e-3) == tiny_profile.plan(1).schedule(1e-3)


def test_a_model_runs_with_its_profile(tiny_profile: Profile, tmp_path: Path) -> None:
    tiny = TINY["wan"]
    tiny_profile.save(tmp_path / "p.json")
    settings: dict[str, Any] = dict(
        forecast=1, correct=True, computed_steps=6, num_inference_steps=STEPS
    )
    runs = []
    for given in (
        tiny_profile,
        tmp_path / "p.json",
        str(tmp_path / "p.json"),
        tiny_profile.to_dict(),
    ):
        model = ak.patch(tiny.build(), profile=given, **settings)
        runs.append(denoise(tiny, model, STEPS)[-1])
        summary = ak.summary(model)
        assert 4 <= len(summary.computed_steps) <= 8
        json.dumps(summary.to_dict())
    # Inner products are saved to nine digits.
    assert all(torch.allclose(run, runs[0], atol=1e-5) for run in runs)


def test_the_expected_error_is_that_of_a_calibration_case(tiny_profile: Profile) -> None:
    """On the calibrated model, measured and expected errors agree within a factor of 2."""
    tiny = TINY["wan"]
    model = ak.patch(
        tiny.build(), profile=tiny_profile, forecast=1, computed_steps=6, num_inference_steps=STEPS
    )
    denoise(tiny, model, STEPS)
    summary = ak.summary(model)
    history: list[int] = []
    for step, distance in zip(summary.computed_steps, summary.distances, strict=True):
        if distance is not None:
            expected = tiny_profile.expected_error(1, history, step)
            assert 0.5 < distance * (step - history[0]) / expected < 2
        history.insert(0, step)


def test_motion_regularization_has_the_profiles_constants(tiny_profile: Profile) -> None:
    config = ak.AdaCacheConfig(profile=tiny_profile, computed_steps=6, apply_moreg=True)
    assert (config.metric, config.measured_metric) == ("l1", "l2")
    assert config.measure == "forecast-error"
    assert config.moreg == (*tiny_profile.moreg_hyp, 0.0)
    given = ak.AdaCacheConfig(
        profile=tiny_profile, computed_steps=6, moreg_hyp=(0.2, 1.0, 1.0), mograd_mul=3.0
    )
    assert given.moreg == (0.2, 1.0, 1.0, 3.0)


def test_a_motion_score_scales_the_errors(tiny_profile: Profile) -> None:
    """A motion score of 30 in every step acts like errors 30 times as large."""
    tiny, counts = TINY["wan"], []
    for hyp in ((1.0, 0.0, 1.0), (1.0, 0.0, 1 / 30)):
        model = ak.patch(
            tiny.build(),
            profile=tiny_profile,
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


def test_a_profile_of_something_else_is_refused(tiny_profile: Profile) -> None:
    settings: dict[str, Any] = dict(profile=tiny_profile, computed_steps=6)
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
        ({"moreg_hyp": [1, -0.5, 1]}, "moreg_hyp"),
        ({"moreg_hyp": [1, 1, 0]}, "moreg_hyp"),
    ],
)
def test_a_broken_profile_is_refused(
    tiny_profile: Profile, tmp_path: Path, broken: dict[str, Any], message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(tiny_profile.to_dict() | broken))
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


def test_settings_that_do_not_go_with_a_profile(tiny_profile: Profile) -> None:
    with pytest.raises(ValueError, match="either computed_steps"):
        ak.AdaCacheConfig(profile=tiny_profile)
    with pytest.raises(ValueError, match="either computed_steps"):
        ak.AdaCacheConfig(profile=tiny_profile, computed_steps=5, schedule=[1, 4])
    with pytest.raises(ValueError, match="forecasts are fitted"):
        ak.AdaCacheConfig(profile=tiny_profile, computed_steps=5, forecast_time="sigma")
