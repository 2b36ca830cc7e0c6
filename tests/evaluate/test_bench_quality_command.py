"""The command `adacache bench quality`: its files, prompts, methods and progress bar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.cli.common import progress_bar, read_prompts, split_methods
from adacache_kernels.evaluate import pipelines
from tests.support.tiny_study import NAMES, STEPS, parsed, subject


def test_the_command_writes_tables_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda *args, **kwargs: subject())
    options = ["--methods", NAMES[0], "steps:4,even:5", "--steps", str(STEPS)]
    arguments = ["bench", "quality", "--prompts", "a", "bc", *options, "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"table.md", "table.csv", "table.json", "rows.jsonl", "study.json"} <= names
    assert {"distances.png", "frontier.png", "contact_sheet.png"} <= names
    table = json.loads((tmp_path / "table.json").read_text())
    assert [line["method"] for line in table] == ["full", NAMES[0], "steps:4", "even:5"]
    assert "| steps:4 |" in capsys.readouterr().out
    assert cli.main([*arguments, "--seeds", "2"]) == 0
    assert cli.main([*arguments[:-3], "9", *arguments[-2:]]) == 2
    assert "holds a study with other steps" in capsys.readouterr().err


def test_prompts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo words\n")
    assert read_prompts([str(path)]) == ["one", "two words"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no prompt; write one a line"):
        read_prompts([str(path)])
    with pytest.raises(ValueError, match="a prompt of --prompts is empty"):
        read_prompts(["one", " "])


def test_methods_are_split_outside_of_brackets() -> None:
    text = "fast, adacache:codebook={0.1: 3, 9: 1}:cache_loc=(0, 1),steps:4"
    names = ["fast", "adacache:codebook={0.1: 3, 9: 1}:cache_loc=(0, 1)", "steps:4"]
    assert split_methods(text) == names


def test_a_gain_over_a_method_that_is_not_compared(tmp_path: Path) -> None:
    options = ["--methods", "fast", "--against", "slow", "--out", str(tmp_path)]
    assert cli.main(["bench", "quality", "--prompts", "a", *options]) != 0


def test_two_methods_of_one_name() -> None:
    with pytest.raises(ValueError, match="--methods has fast twice"):
        parsed("fast", "fast")
    assert ak.__version__


def test_the_bar_shows_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """A study resumes at the fifth video, and another count follows."""
    with progress_bar() as show:
        show("a: fast", 5, 8)
        show("b: slow", 6, 8)
        show("held-out cases", 1, 8)
        show("held-out cases", 2, 8)
    shown = capsys.readouterr().err
    assert "b: slow:  75%" in shown and "6/8" in shown
    assert "held-out cases:  25%" in shown.splitlines()[-1]
