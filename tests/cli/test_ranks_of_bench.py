"""`adacache bench quality` on the ranks of a launcher."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adacache_kernels.evaluate.rows_of_ranks import read_all_rows
from tests.support.launched import Launch, join_group, launch
from tests.support.tiny_study import NAMES, STEPS, subject

TIMED = ("seconds", "pipeline_seconds", "full_seconds", "full_pipeline_seconds")
OF_TABLE = ("method", "videos", "computed", "psnr", "psnr_worst", "ssim", "work", "held_mib")


def launched(folder: Path, *words: str, **how: Any) -> Launch:
    """Return a study of 3 prompts and 3 methods, of which the full run is one."""
    folder.mkdir(exist_ok=True)
    methods = [NAMES[0], "steps:4"]
    options = ["--methods", *methods, "--steps", str(STEPS), "--out", str(folder / "out")]
    study = ["bench", "quality", "--prompts", "a", "bc", "def", *options, *words]
    return Launch(study, folder, subject, **how)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return the rows without their seconds."""
    lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{name: row[name] for name in row if name not in TIMED} for row in rows]


def table_in(folder: Path) -> list[dict[str, Any]]:
    table = json.loads((folder / "out" / "table.json").read_text())
    return [{name: line[name] for name in OF_TABLE} for line in table]


def about(values: Any) -> Any:
    """Return values to compare with: sums at other addresses round otherwise."""
    if isinstance(values, list):
        return [about(value) for value in values]
    if isinstance(values, dict):
        return {name: about(value) for name, value in values.items()}
    return pytest.approx(values, rel=1e-4) if isinstance(values, float) else values


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one process."""
    folder = tmp_path_factory.mktemp("alone")
    (ended,) = launch(launched(folder), size=1)
    assert ended.code == 0
    return folder


def test_two_ranks_write_what_one_process_writes(alone: Path, tmp_path: Path) -> None:
    """The ranks are in one group, and have 2 videos and 1: they decide each for itself."""
    first, second = launch(launched(tmp_path, prepare=join_group))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert rows_in(tmp_path) == about(rows_in(alone))
    assert table_in(tmp_path) == about(table_in(alone))
    assert "| steps:4 |" in first.out and "video" in first.errors
    assert second.out == second.errors == ""
    # Each video by 3 methods; the first once more by each, to count its costs.
    assert (first.generated, second.generated) == (9, 3)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "rows-1.jsonl" not in names and not any(name.startswith(".r") for name in names)


def test_a_dead_rank_is_named_and_the_rest_is_made_later(alone: Path, tmp_path: Path) -> None:
    words = ["--no-flops", "--seeds", "2", "--rank-timeout", "3"]
    # Rank 1 has 3 of 6 videos, and dies when 4 of its 9 rows are written.
    first, second = launch(launched(tmp_path, *words, dying=5))
    assert (first.code, second.code) == (2, -signal.SIGKILL)
    last = first.errors.splitlines()[-1]
    assert last.startswith("adacache bench: rank 1 of 2 has given no sign of life for 3 seconds")
    assert "repeat the command, with any number of ranks" in last
    assert len(read_all_rows(tmp_path / "out")) == 9 + 4
    assert first.out == ""

    first, second = launch(launched(tmp_path, *words))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    # Of two videos, 2 and 3 rows are missing; the first needs its full run again.
    assert sorted([first.generated, second.generated]) == [3, 3]
    keys = [(row["method"], row["prompt"], row["seed"]) for row in rows_in(tmp_path)]
    methods = ["full", NAMES[0], "steps:4"]
    assert keys == [(m, p, s) for s in (0, 1) for p in ("a", "bc", "def") for m in methods]
    (again,) = launch(launched(tmp_path, *words), size=1)
    assert again.code == 0 and again.generated == 0


def test_a_method_that_fails_on_one_rank_is_one_failure(tmp_path: Path) -> None:
    study = launched(tmp_path, prepare=_fail_on_a_longer_prompt)
    study = replace(study, words=[*study.words, "--no-flops"])
    first, second = launch(study)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [line["method"] for line in table] == ["full", "steps:4", NAMES[0]]
    assert table[-1]["error"] == "RuntimeError: broken" and table[-1]["videos"] == 2


def test_a_model_that_is_spread_over_the_ranks_is_refused(tmp_path: Path) -> None:
    for ended in launch(launched(tmp_path, prepare=_spread)):
        assert ended.code == 2 and ended.generated == 0
        assert "VideoSys spreads its model over ranks 0, 1, and this command" in ended.errors


def test_ranks_that_were_not_started_are_named(tmp_path: Path) -> None:
    (ended,) = launch(launched(tmp_path, "--rank-timeout", "1"), size=3, ranks=[0])
    assert ended.code == 2 and ended.generated == 0
    assert "rank 1 of 3 was not seen in" in ended.errors
    assert "unset WORLD_SIZE to run alone" in ended.errors


def _spread(pipe: Any) -> None:
    join_group(pipe)

    class Manager:
        sp_group = torch.distributed.group.WORLD

    pipe.transformer.parallel_manager = Manager()


def _fail_on_a_longer_prompt(pipe: Any) -> None:
    """Make patched forwards fail for the second prompt, which rank 1 has: its latents are 1.2."""

    def check(_module: Any, args: Any, kwargs: Any) -> None:
        import adacache_kernels as ak

        latents = kwargs.get("hidden_states", args[0] if args else None)
        if ak.is_patched(pipe) and abs(float(latents.flatten()[0]) - 1.2) < 0.01:
            raise RuntimeError("broken")

    pipe.transformer.register_forward_pre_hook(check, with_kwargs=True, prepend=True)
