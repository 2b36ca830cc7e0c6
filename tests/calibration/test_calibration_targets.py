"""`calibrate` for a target: its result, its file, its errors, and the command.

Seconds are not measured: a forward call takes 1 if the blocks run, else 0.1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels import Calibration, Profile, calibrate
from adacache_kernels.calibration import timed_runs
from adacache_kernels.calibration.choose_codebook import is_harder_with_motion
from adacache_kernels.calibration.request import draw_held_out
from adacache_kernels.cli import main as cli
from adacache_kernels.cli.common import progress_bar
from adacache_kernels.config.calibration_file import Target
from adacache_kernels.evaluate import method_spec, pipelines
from adacache_kernels.evaluate.pipelines import Subject
from adacache_kernels.schedule.codebook import Codebook
from tests.support.tiny_calibration import STEPS, TINY_WAN, Generate, denoising
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

COMPUTED, REUSED = 1.0, 0.1


@contextmanager
def fixed_seconds(transformer: nn.Module) -> Iterator[list[float]]:
    """Yield the seconds of every forward call, by whether its first block ran."""
    seconds: list[float] = []
    ran: list[bool] = []
    blocks = getattr(transformer, "blocks", None) or transformer.get_submodule("transformer_blocks")
    handles = [
        blocks[0].register_forward_hook(lambda *_: ran.append(True)),
        transformer.register_forward_hook(
            lambda *_: (seconds.append(COMPUTED if ran else REUSED), ran.clear())[1]
        ),
    ]
    yield seconds
    for handle in handles:
        handle.remove()


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_runs, "timed_forwards", fixed_seconds)


def calibrated(**arguments: Any) -> Calibration:
    """Calibrate the tiny model with seeds 0 to 3, one of them held out."""
    model = TINY_WAN.build()
    defaults: dict[str, Any] = dict(trials=2, rounds=2, num_inference_steps=STEPS)
    return calibrate(model, range(4), denoising(model), **(defaults | arguments))


@pytest.fixture(scope="module")
def faster() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_runs, "timed_forwards", fixed_seconds)
        return calibrated(target_speedup=2.0, rounds=4)


@pytest.fixture(scope="module")
def plain() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_runs, "timed_forwards", fixed_seconds)
        return calibrated(target_speedup=1.8, kind="codebook", held_out=[7, 8])


def speedup(computed: int) -> float:
    return STEPS / (COMPUTED * computed + REUSED * (STEPS - computed))


# Its result


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


# Its file


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


def of_pipeline(pipe: Any) -> Generate:
    def run(seed: int) -> Any:
        noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        return torch.sigmoid(run_latte(pipe, 8, latents=noise))

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "its format is 99, this version reads 2"),
        ({"what": "a recipe"}, "this is no calibration of adacache_kernels"),
        ({"kind": "magic"}, "broken: kind is 'magic'"),
        ({"calibrated_for": None}, "broken: kind is 'codebook', calibrated_for is None"),
        ({"calibrated_for": {"model": {}}}, "broken: calibrated_for has no 'scheduler'"),
        (
            {"calibrated_for": {"model": {}, "scheduler": None, "num_steps": 12}},
            "calibrated_for holds {}",
        ),
        ({"settings": {"codebook": [[0.1, 0]]}}, "broken: the codebook's rate 0"),
        ({"settings": {"turbo": True}}, "broken: .*'turbo'"),
        ({"target": {"of": "speedup"}}, "broken: .*'value'"),
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
    with pytest.raises(ValueError, match="broken: it has no 'settings'"):
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


# Its errors


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


# The command


def subject() -> Subject:
    pipe = latte()
    run = of_pipeline(pipe)
    return Subject(pipe, lambda prompt, steps, seed: run(10 * len(prompt) + seed).numpy())


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda *_, **__: subject())
    (tmp_path / "prompts.txt").write_text("a\nab\n\nabc\nabcd\n")
    out = tmp_path / "out.json"
    words = ["calibrate", "--prompts", str(tmp_path / "prompts.txt"), "--steps", "8"]
    words += ["--target-speedup", "1.5", "--kind", "codebook", "--out", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert "codebook for 1.5x:" in printed.out
    assert "Fitted to 3 videos; measured (1 / thr" in printed.out
    assert f"Written to {out}" in printed.out and "held-out cases" in printed.err
    # 3 in full, 3 to measure motion, 6 for costs, 2 held out, and 6 in each round.
    assert re.search(r"It took (20|26|32|38) generations, \d+ s in all", printed.out)
    calibration = Calibration.load(out)
    assert calibration.notes["cases"] == 3 and calibration.held_out.cases == 1
    assert cli.main([*words, "--held-out", "abcde", "abcdef", "--rounds", "1"]) == 0
    calibration = Calibration.load(out)
    assert calibration.notes["cases"] == 4 and calibration.held_out.cases == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "a", "b", "--out", "none/x.json"], "there is no folder none"),
        (["--prompts", "", "--out", "x.json"], "a prompt of --prompts is empty"),
        (["--prompts", "a", "--held-out", " ", "--out", "x.json"], "prompt of --held-out is empty"),
        (["--prompts", "a", "b", "--steps", "0", "--out", "x.json"], "--steps is 0"),
        (["--prompts", "a", "b", "--call", "size", "--out", "x"], "--call size: write KEY=VALUE"),
        (["--prompts", "pink", "a", "--out", "x.json"], "does not know 'pink'"),
        (["--prompts", "a", "--out", "x.json"], "--prompts has one prompt"),
        (["--prompts", "a", "a", "--out", "x.json"], "'a' is a prompt to fit to and a held-out"),
        (["--prompts", "a", "b", "--held-out", "b", "--out", "x.json"], "'b' is a prompt to fit"),
        (["--prompts", "no.txt", "--out", "x.json"], "--prompts is no.txt, and there is no such"),
        (["--prompts", "a", "b", "--out", "."], "--out is ., a folder"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", "--target-speedup", "2", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_target_is_an_error_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda *_, **__: pytest.fail("loaded"))
    words = ["calibrate", "--prompts", "a", "b", "--out", "x.json", "--target-speedup", "0.5"]
    assert cli.main(words) == 2
    assert "target_speedup is 0.5; it must be above 1" in capsys.readouterr().err


def test_every_count_has_its_own_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as show:
        for doing, total in (("first", 3), ("second", 3), ("third", 1), ("fourth", 1)):
            for done in range(total):
                show(f"{doing} {done}", done + 1, total)
    lines = capsys.readouterr().err.strip().split("\n")
    assert [line.split("\r")[-1].split("|")[0] for line in lines] == [
        "first 2: 100%",
        "second 2: 100%",
        "third 0: 100%",
        "fourth 0: 100%",
    ]


def test_the_command_wants_one_target(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--prompts", "a", "--out", "x.json"]
    for more in ([], ["--target-speedup", "2", "--target-psnr", "40"]):
        with pytest.raises(SystemExit):
            cli.main([*words, *more])
    assert "not allowed with" in capsys.readouterr().err
