"""The file of a calibration: saved, loaded, patched with, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels import Calibration, calibrate
from adacache_kernels.evaluate import method_spec
from tests.support.tiny_calibration import (
    STEPS,
    TINY_WAN,
    calibrated,
    denoising,
    of_pipeline,
)
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

pytestmark = pytest.mark.usefixtures("seconds")


def test_it_is_saved_loaded_and_patched(faster: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    faster.save(path)
    loaded = Calibration.load(path)
    assert loaded.to_dict() == faster.to_dict()
    outcomes = []
    for given in (faster, loaded, path, str(path)):
        model = ak.patch(TINY_WAN.build(), given)
        outcomes.append((denoising(model)(3), ak.summary(model).computed_steps))
    assert all(steps == outcomes[0][1] for _, steps in outcomes)
    assert all(torch.allclose(outcome, outcomes[0][0], atol=1e-5) for outcome, _ in outcomes)
    json.dumps(ak.summary(model).to_dict())


def test_a_codebook_is_saved_and_loaded(plain: Calibration, tmp_path: Path) -> None:
    plain.save(tmp_path / "plain.json")
    loaded = Calibration.load(tmp_path / "plain.json")
    assert loaded.config() == plain.config() and loaded.to_dict() == plain.to_dict()
    model = ak.patch(TINY_WAN.build(), loaded)
    denoising(model)(7)
    assert len(ak.summary(model).computed_steps) == plain.notes["held_out_computed"][0]


def test_settings_can_be_changed(faster: Calibration) -> None:
    counts = []
    for count in (5, 10):
        model = ak.patch(TINY_WAN.build(), faster, computed_steps=count, adaptivity=0.0)
        denoising(model)(3)
        counts.append(len(ak.summary(model).computed_steps))
    assert counts == [5, 10]
    with pytest.raises(TypeError, match="unknown setting speed"):
        ak.patch(TINY_WAN.build(), faster, speed=2)


def test_it_is_a_method_of_bench_quality(
    faster: Calibration, plain: Calibration, tmp_path: Path
) -> None:
    for name, calibration in (("faster", faster), ("plain", plain)):
        path = tmp_path / f"{name}.json"
        calibration.save(path)
        model = TINY_WAN.build()
        with method_spec.parse_method(f"{path}", STEPS).applied(model) as last_summary:
            denoising(model)(3)
            summary = last_summary()
        assert summary is not None and len(summary.computed_steps) < STEPS


@pytest.mark.parametrize("name", ["faster", "plain"])
def test_another_model_or_number_of_steps_is_refused(
    name: str, request: pytest.FixtureRequest
) -> None:
    calibration: Calibration = request.getfixturevalue(name)
    with pytest.raises(ValueError, match=r"calibration is for another model: class 'Wan"):
        ak.patch(TINY["latte"].build(), calibration)
    with pytest.raises(ValueError, match=r"the calibration is for 12 steps .* has 20"):
        ak.patch(TINY_WAN.build(), calibration, num_inference_steps=20)
    other = TINY_WAN.build()
    other.register_to_config(num_layers=30)
    with pytest.raises(ValueError, match="num_layers 3, here 30; calibrate for this one"):
        ak.patch(other, calibration)
    assert not ak.is_patched(other)


def test_another_scheduler_is_refused(tmp_path: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe = latte()
    calibration = calibrate(
        pipe, range(3), of_pipeline(pipe), target_speedup=1.5, rounds=1, kind="codebook"
    )
    assert calibration.calibrated_for.num_steps == 8
    calibration.save(tmp_path / "latte.json")
    ak.patch(pipe, tmp_path / "latte.json")
    with pytest.raises(ValueError, match="is for 8 steps and this generation has 6"):
        run_latte(pipe, 6)
    ak.unpatch(pipe)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=r"is for another scheduler: class .*Scheduler', here"):
        ak.patch(pipe, tmp_path / "latte.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "its format is 99, this version reads 2"),
        ({"what": "a recipe"}, "this is no calibration of adacache_kernels"),
        ({"kind": "magic"}, "broken: kind is 'magic'"),
        ({"calibrated_for": None}, "broken: calibrated_for is None; it must be an object"),
        ({"calibrated_for": {"model": {}}}, "broken: calibrated_for has no 'scheduler'"),
        (
            {"calibrated_for": {"model": {}, "scheduler": None, "num_steps": 12}},
            "calibrated_for holds {}",
        ),
        ({"settings": {"codebook": [[0.1, 0]]}}, "broken: the codebook's rate 0"),
        ({"settings": {"turbo": True}}, "broken: .*'turbo'"),
        ({"target": {"of": "speedup"}}, "broken: it has no target.value"),
    ],
)
def test_a_broken_file_is_named(
    plain: Calibration, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(plain.to_dict() | change))
    with pytest.raises(ValueError, match=message) as error:
        ak.patch(TINY_WAN.build(), path)
    assert str(error.value).startswith(str(path))


def test_files_that_hold_no_calibration(
    faster: Calibration, plain: Calibration, tmp_path: Path
) -> None:
    model, path = TINY_WAN.build(), tmp_path / "it.json"
    with pytest.raises(FileNotFoundError, match=r"no calibration at .*it\.json; make one with"):
        ak.patch(model, str(path))
    path.write_text("{")
    with pytest.raises(ValueError, match=r"it\.json: this is no JSON file: Expecting"):
        ak.patch(model, path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.json"):
        calibrated(target_speedup=2.0, profile=str(tmp_path / "none.json"))
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"it\.json: this is no calibration"):
        ak.patch(model, path)
    missing = plain.to_dict()
    del missing["settings"]
    path.write_text(json.dumps(missing))
    with pytest.raises(ValueError, match="broken: it has no settings"):
        ak.patch(model, path)
    assert faster.profile is not None
    faster.profile.save(path)
    with pytest.raises(
        ValueError, match=r"a profile alone, .* patch with profile=, computed_steps="
    ):
        ak.patch(model, path)
    with pytest.raises(ValueError, match=r"config is 'quick'; .* a calibration is a .json file"):
        ak.patch(model, "quick")
    with pytest.raises(TypeError, match=r"config is 3; it may be .* a Calibration"):
        ak.patch(model, 3)  # type: ignore[type-var]
    assert not ak.is_patched(model)
