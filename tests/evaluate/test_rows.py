"""The file of rows: cut off, joined, broken, of another version."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels.evaluate.results import (
    Row,
    append_row,
    check_same_study,
    end_last_line,
    read_rows,
)
from adacache_kernels.evaluate.runner import Study
from tests.support.tiny_study import CASES, STEPS, fixed_row, parsed, subject

# A prompt with the start of a row, quotes and another alphabet.
PROMPT = 'a {"method": "x"} \u00e9\n'
ROWS = [
    replace(fixed_row("fast", 30.5, 5, 1.0), prompt=PROMPT, notes=("a note",)),
    fixed_row("slow", None, 7, 2.0),
    replace(fixed_row("even:5", 20.0, 5, 1.5), seed=2**63 - 1, distances=[None, 0.5]),
]


def lines_of(rows: list[Row]) -> list[str]:
    return [json.dumps(asdict(row)) + "\n" for row in rows]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_are_appended_and_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    with path.open("ab", buffering=0) as file:
        for row in ROWS:
            append_row(file, row)
    assert read_rows(path) == ROWS
    assert path.read_text() == "".join(lines_of(ROWS))


def test_a_row_that_is_cut_off_anywhere_is_left_out(tmp_path: Path) -> None:
    first, second, third = lines_of(ROWS)
    for cut in range(1, len(third) - 1, 7):
        path = written(tmp_path / "rows.jsonl", first + second + third[:cut])
        with pytest.warns(ak.AdaCacheWarning, match=r"line 3: a row was cut off .* again"):
            assert read_rows(path) == ROWS[:2]
    path = written(path, first + second + third.rstrip("\n"))
    assert read_rows(path) == ROWS


def test_a_row_that_follows_a_cut_one_on_its_line_is_read(tmp_path: Path) -> None:
    first, second, third = lines_of(ROWS)
    for cut in range(1, len(second) - 2, 7):
        path = written(tmp_path / "rows.jsonl", first + second[:cut] + third)
        with pytest.warns(ak.AdaCacheWarning, match="line 2: a row was cut off"):
            assert read_rows(path) == [ROWS[0], ROWS[2]]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("{0}{1}{2}", [0, 1, 2]),
        ("{0}\n{1}{2}\n", [0, 1, 2]),
        ("\n\n{0}\n \n{1}\n", [0, 1]),
        ("{0}\n{1}\n{0}\n", [0, 1]),
        ("{0}\n\0\0\0\0", [0]),
        ("{0}\r\n{1}\r\n", [0, 1]),
    ],
)
def test_joined_and_repeated_rows(text: str, kept: list[int], tmp_path: Path) -> None:
    for index, line in enumerate(lines_of(ROWS)):
        text = text.replace(f"{{{index}}}", line.rstrip("\n"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode())
    assert read_rows(path) == [ROWS[index] for index in kept]


def test_two_halves_of_a_row_with_zeros_between(tmp_path: Path) -> None:
    first, second, third = lines_of(ROWS)
    text = first + second[:100] + "\0" * 512 + "\n" + third
    path = written(tmp_path / "rows.jsonl", text)
    with pytest.warns(ak.AdaCacheWarning, match="line 2: a row was cut off"):
        assert read_rows(path) == [ROWS[0], ROWS[2]]


def changed(**change: Any) -> str:
    return json.dumps(asdict(ROWS[1]) | change)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (changed(ssim=float("nan")), "ssim is nan, not finite"),
        (changed(distances=[1.0, float("inf")]), r"distances\[1\] is inf"),
        (changed(psnr="high"), "psnr is 'high'; it must be a finite number or null"),
        (changed(seed=1.5), "seed is 1.5; it must be an integer"),
        (changed(prompt=None), "prompt is None; it must be a text"),
        (changed(computed_steps=[1, "2"]), "computed_steps is"),
        (changed(notes="none"), "notes is 'none'; it must be a list"),
        (changed(other=1), "other is unknown"),
        (changed()[:-1] + ', "seed": 3}', "it has the entry 'seed' twice"),
        ('{"method": ' + "[" * 5000 + "]" * 5000 + "}", "more than 64 levels"),
        ('{"method": "fast"}', "it has no curve"),
        ("[1]", r"it is \[1\]; it must be an object"),
        ("not a row", "this is no JSON file"),
        ('{"other": ', "this is no JSON file"),
    ],
)
def test_a_wrong_row_is_named(line: str, message: str, tmp_path: Path) -> None:
    first, second, _ = lines_of(ROWS)
    path = written(tmp_path / "rows.jsonl", first + line + "\n" + second)
    with pytest.raises(ValueError, match=rf"rows\.jsonl, line 2: .*{message}.*broken or was"):
        read_rows(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"rows\.jsonl: this is no text"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_full_disk_is_an_error() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(data[:10])

    with pytest.raises(OSError, match="No space left") as error:
        append_row(Full(), ROWS[0])
    assert error.value.errno == errno.ENOSPC


def test_a_new_row_does_not_follow_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    end_last_line(path)
    assert path.read_bytes() == b""
    for text, expected in (("a\n", "a\n"), ("a\nb", "a\nb\n"), ("", "")):
        end_last_line(written(path, text))
        assert path.read_text() == expected


@pytest.mark.filterwarnings("ignore:.*a row was cut off:adacache_kernels.AdaCacheWarning")
def test_a_study_goes_on_after_its_last_row_was_cut_off(tmp_path: Path) -> None:
    def study() -> Study:
        return Study(subject(), parsed("steps:4"), STEPS, flops=False)

    study().run(CASES[:1], tmp_path)
    path = tmp_path / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    reports: list[str] = []
    rows = study().run(CASES[:2], tmp_path, lambda doing, done, total: reports.append(doing))
    assert len(rows) == 4 and reports == ["a: steps:4", "bc: full", "bc: steps:4"]
    assert path.read_bytes().startswith(whole[:-30] + b"\n")
    assert [row.key for row in read_rows(path)] == [row.key for row in rows]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"steps": NaN}', '{"a": 1, "a": 1}'])
def test_a_broken_study_file_is_named(text: str, tmp_path: Path) -> None:
    written(tmp_path / "study.json", text)
    with pytest.raises(ValueError, match=r"study\.json: .*; give another --out"):
        check_same_study(tmp_path, {"steps": 3})


def test_a_study_file(tmp_path: Path) -> None:
    for _ in range(2):
        check_same_study(tmp_path / "new", {"steps": 3})
    with pytest.raises(ValueError, match="a study with other steps; give another --out"):
        check_same_study(tmp_path / "new", {"steps": 4})
