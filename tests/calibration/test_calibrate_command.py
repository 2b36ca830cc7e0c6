"""`adacache calibrate`: its output, its errors, its progress bars."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adacache_kernels import Calibration
from adacache_kernels.cli import main as cli
from adacache_kernels.cli.common import progress_bar
from adacache_kernels.evaluate import pipelines
from tests.support.tiny_calibration import subject

pytestmark = pytest.mark.usefixtures("seconds")


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
        (["--prompts", "a", "b", "--out", "."], "cannot write .: it is a folder"),
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
