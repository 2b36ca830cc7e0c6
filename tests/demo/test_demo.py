"""The demo: its pipeline with the cache, its files, its table, and its errors."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.demo import draw, report
from adacache_kernels.demo.pipeline import (
    CONFIGS,
    DEFAULT_WEIGHTS,
    WEIGHTS,
    check_prompts,
    known_words,
    load_pipeline,
)
from adacache_kernels.demo.presets import DEMO_PRESETS
from adacache_kernels.demo.run import DemoResult, generate, run_demo
from adacache_kernels.demo.write_files import _slug
from adacache_kernels.measure.psnr_ssim import psnr

FAST, STILL = "a white six moving fast", "a white two standing still"
EVERY_THIRD = {"every third": {"codebook": {10.0: 3}}}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline()


@pytest.fixture(scope="module")
def result(pipe: Any) -> DemoResult:
    return run_demo(pipe, [FAST, FAST], EVERY_THIRD, steps=7, progress=False)


def test_the_weights_are_small_and_loaded_in_float32(pipe: Any) -> None:
    sizes = [path.stat().st_size for path in DEFAULT_WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 8_000_000
    assert {p.dtype for p in pipe.transformer.parameters()} == {torch.float32}
    assert {p.dtype for p in pipe.text_encoder.parameters()} == {torch.float32}


def test_the_model_draws_a_bright_digit_with_the_motion_of_the_prompt(pipe: Any) -> None:
    """The prompt decides whether the centre of brightness moves; in pixels a frame."""
    moved = {}
    for prompt in (FAST, STILL):
        video = generate(pipe, prompt, steps=20)
        assert video.shape == (16, 32, 32, 3)
        assert 0.02 < float(video.mean()) < 0.3
        moved[prompt] = motion(video)
    assert moved[FAST] > 0.8
    assert moved[STILL] < 0.2


def motion(video: Any) -> float:
    brightness = video.mean(axis=-1)
    rows, columns = np.mgrid[0:32, 0:32]
    total = brightness.sum(axis=(1, 2))
    centre = np.stack([(brightness * axis).sum(axis=(1, 2)) / total for axis in (rows, columns)])
    return float(np.median(np.linalg.norm(np.diff(centre, axis=1), axis=0)))


def test_rate_1_is_bit_equal_through_the_pipeline(pipe: Any) -> None:
    plain = generate(pipe, FAST, steps=6)
    ak.patch(pipe, codebook={10.0: 1})
    patched = generate(pipe, FAST, steps=6)
    assert ak.summary(pipe).computed_steps == [1, 2, 3, 4, 5, 6]
    ak.unpatch(pipe)
    assert np.array_equal(plain, patched)
    assert np.array_equal(plain, generate(pipe, FAST, steps=6))


@pytest.mark.parametrize("name", DEMO_PRESETS)
def test_presets_reuse_and_stay_close(pipe: Any, name: str) -> None:
    plain = generate(pipe, STILL, steps=50)
    ak.patch(pipe, **DEMO_PRESETS[name])
    patched = generate(pipe, STILL, steps=50)
    summary = ak.summary(pipe)
    ak.unpatch(pipe)
    assert 5 <= len(summary.computed_steps) <= 40
    assert psnr(patched, plain) > 18


def test_the_schedule_depends_on_the_prompt(pipe: Any) -> None:
    """Distances differ between videos, so one codebook gives each its own schedule."""
    schedules = {}
    ak.patch(pipe, **DEMO_PRESETS["demo-slow"])
    for prompt in (FAST, STILL, "a white nine moving slowly"):
        generate(pipe, prompt, steps=50)
        schedules[prompt] = tuple(ak.summary(pipe).computed_steps)
    ak.unpatch(pipe)
    assert len(set(schedules.values())) == 3
    assert len(schedules[STILL]) < len(schedules[FAST])


def test_a_reused_step_enters_no_block_of_the_demo_transformer(result: DemoResult) -> None:
    summary = result.measured[1].run.summary
    assert summary is not None
    assert summary.reused_steps == [3, 4]
    one = 4 * 2 * 16 * 16 * 128
    assert (summary.cache_tensors, summary.cache_bytes) == (2, 2 * one)


def test_runs_are_in_order_and_measured_against_the_unpatched_one(result: DemoResult) -> None:
    assert result.names() == ["unpatched", "every third", "every third (fewer steps)"]
    assert result.prompts == [FAST, FAST]
    for index in range(2):
        unpatched, patched, fewer = result.of_prompt(index)
        assert (unpatched.psnr, unpatched.speedup) == (math.inf, 1.0)
        assert patched.run.computed == 5
        assert (fewer.run.steps, fewer.run.computed) == (5, 5)
        assert patched.psnr == psnr(patched.run.video, unpatched.run.video)
        assert len(patched.run.step_seconds) == 7


def test_the_table_and_the_json_say_the_same(result: DemoResult) -> None:
    lines = report.table(result).splitlines()
    assert len(lines) == 2 + 3 * (2 + 1)
    loaded = json.loads(json.dumps(report.to_json(result), allow_nan=False))
    assert [run["run"] for run in loaded["runs"]] == [m.run.name for m in result.measured]
    patched = loaded["runs"][1]
    assert patched["summary"]["computed_steps"] == [1, 2, 5, 6, 7]
    assert f"{patched['psnr_db']:.1f}" in lines[3]
    assert loaded["runs"][0]["psnr_db"] is None
    assert loaded["configs"]["every third"]["codebook"] == [[10.0, 3]]
    assert 0 < loaded["reused_step_ms"] < loaded["computed_step_ms"]


def test_the_pictures(result: DemoResult, tmp_path: Path) -> None:
    draw.save_gif(tmp_path / "a.gif", result.of_prompt(0))
    draw.save_contact_sheet(tmp_path / "sheet.png", result)
    draw.save_plot(tmp_path / "plot.png", result)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 16
        assert gif.width >= 3 * 32 * draw.GIF_ZOOM
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 16 * 32 * draw.SHEET_ZOOM
        assert sheet.height >= 6 * 32 * draw.SHEET_ZOOM
    with Image.open(tmp_path / "plot.png") as plot:
        assert len(set(plot.convert("RGB").get_flattened_data())) > 20


def test_the_plot_shows_every_distance(pipe: Any) -> None:
    """The panels share their axes, but the second one has larger distances than the first."""
    configs = {"rarely": {"codebook": {10.0: 8}}, "always": {"codebook": {10.0: 1}}}
    result = run_demo(pipe, [FAST], configs, steps=20, progress=False)
    figure = draw.plot(result)
    drawn = [y for axes in figure.axes for line in axes.lines[:1] for y in line.get_ydata()]
    summaries = [m.run.summary for m in result.measured if m.run.summary]
    assert drawn == [d for summary in summaries for d in summary.distances if d is not None]
    lowest, highest = figure.axes[0].get_ylim()
    assert lowest == 0
    assert highest > max(drawn)


def test_the_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompt", FAST, "--prompt", FAST, "--steps", "6", "--config", "fast"]
    assert cli.main(["demo", *arguments, "--out", str(tmp_path)]) == 0
    slug = FAST.replace(" ", "-")
    expected = {
        f"01-{slug}.gif", f"02-{slug}.gif", "contact_sheet.png", "demo.json", "distances.png",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert "fast (fewer steps)" in capsys.readouterr().out


@pytest.mark.parametrize("steps", ["1", "2", "4"])
def test_too_few_steps_to_reuse_anything(
    steps: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompt", FAST, "--steps", steps, "--config", "fast", "--out", str(tmp_path)]
    assert cli.main(["demo", *arguments]) == 0
    output = capsys.readouterr().out
    assert "nothing can be reused" in output
    assert "equal" in output


def test_the_fewest_steps_with_a_reused_one(pipe: Any) -> None:
    result = run_demo(pipe, [FAST], EVERY_THIRD, steps=report.FEWEST_STEPS, progress=False)
    assert result.measured[1].run.computed == report.FEWEST_STEPS - 1
    assert not any("nothing can be reused" in note for note in report.notes(result))


def test_a_run_that_reused_nothing_gets_a_note(pipe: Any) -> None:
    result = run_demo(pipe, [FAST], {"all": {"codebook": {10.0: 1}}}, steps=5, progress=False)
    assert any("No step was reused" in note for note in report.notes(result))


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load_pipeline()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a red six walking"], "'red', 'walking'.*it knows: a, white, zero"),
        (["--prompt", " "], "a prompt is empty"),
        (["--steps", "0"], "--steps is 0"),
        (["--steps", "-3"], "--steps is -3"),
        (["--threads", "0"], "--threads is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", str(2**63)], "--seed is 9223372036854775808"),
        (["--guidance", "nan"], "--guidance is nan"),
        (["--device", "abacus"], "--device 'abacus' cannot be used"),
        (
            ["--config", "ultra"],
            "--config ultra: with these --steps and --weights there are fast, slow, forecast",
        ),
        (["--weights", "nowhere"], "model_index.json is missing in nowhere"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    assert cli.main(["demo", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"adacache demo: .*{message}.*\n", error), error


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_missing_weights_file(name: str, tmp_path: Path) -> None:
    folder = copied_weights(tmp_path)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing in .*--weights"):
        load_pipeline(folder)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_corrupted_weights_file(name: str, damage: str, tmp_path: Path) -> None:
    folder = copied_weights(tmp_path)
    content = (folder / name).read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "header": b"\xff" * 16 + content[16:],
        "empty": b"",
    }
    (folder / name).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        load_pipeline(folder)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("damage", ["absent", "unknown", "nan"])
def test_weights_that_can_be_read_but_are_wrong(name: str, damage: str, tmp_path: Path) -> None:
    folder = copied_weights(tmp_path)
    weights = load_file(folder / name)
    first = min(weights)
    if damage == "absent":
        del weights[first]
    elif damage == "unknown":
        weights["unknown"] = torch.zeros(1)
    else:
        weights[first] = weights[first] * math.nan
    save_file(weights, folder / name, metadata={"format": "pt"})
    message = "numbers that are not finite" if damage == "nan" else "does not fit its config.json"
    with pytest.raises(ValueError, match=f"{name}.* {message}"):
        load_pipeline(folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_corrupted_config(name: str, tmp_path: Path) -> None:
    folder = copied_weights(tmp_path)
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{folder} holds no LattePipeline"):
        load_pipeline(folder)


def copied_weights(folder: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_WEIGHTS, folder / "weights"))


def test_a_long_prompt_has_a_short_file_name() -> None:
    name = _slug(f"{FAST} " * 30)
    assert name.startswith("a-white-") and len(name) == 100


def test_an_empty_list_of_prompts(pipe: Any) -> None:
    with pytest.raises(ValueError, match="there is no prompt"):
        run_demo(pipe, [], EVERY_THIRD)


def test_zero_steps(pipe: Any) -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        run_demo(pipe, [FAST], EVERY_THIRD, steps=0)


def test_the_words_are_those_of_the_tokenizer(pipe: Any) -> None:
    assert known_words(pipe)[:3] == ["a", "white", "zero"]
    check_prompts(pipe, ["A White Seven standing still"])


def test_an_output_folder_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="/proc takes no new files, on Linux")
def test_an_output_folder_that_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--out", "/proc/demo_out"]) == 2
    assert "cannot write to /proc/demo_out" in capsys.readouterr().err


def test_missing_extras_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "skimage" else find_spec(name)
    )
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert 'skimage not installed; pip install "adacache_kernels[demo]"' in error
