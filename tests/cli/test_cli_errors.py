"""Errors of the command line: one line on stderr that names the value, and exit code 2."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.cli import calibrate, demo, info
from adacache_kernels.cli import main as cli
from adacache_kernels.cli.checks import one_line
from adacache_kernels.cli.common import call_arguments, read_prompts
from adacache_kernels.evaluate import pipelines

BENCH = ["bench", "quality", "--prompts", "a white six moving fast"]
CALIBRATE = ["calibrate", "--prompts", "a white six", "a white two", "--target-speedup", "2"]


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr of a command that fails."""
    try:
        code: object = cli.main(words)
    except SystemExit as error:
        code = error.code
    out, line = capsys.readouterr()
    assert code == 2 and out == ""
    assert re.fullmatch(r"adacache[^\n]*: [^\n]+\n", line) and line[:-1].isprintable(), line
    return line


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipelines, "load", lambda *_, **__: pytest.fail("loaded"))


@pytest.mark.parametrize("command", [BENCH, [*CALIBRATE, "--out", "x.json"], ["demo"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], r"--threads is 0; it must be from 1 to 1024"),
        (["--threads", "-1"], r"--threads is -1"),
        (["--threads", "1" + "0" * 30], r"--threads is 10*; it must be from"),
        (["--threads", "two"], "argument --threads: invalid int value: 'two'; see adacache"),
        (["--threads", "1.5"], "invalid int value: '1.5'"),
        (["--threads", "9" * 5000], "invalid int value"),
        (["--steps", "0"], r"--steps is 0; it must be from 1 to 100000"),
        (["--steps", "1" + "0" * 30], r"--steps is 10*; it must be"),
        (["--device", "tpu"], r"--device 'tpu' cannot be used; it must be such as cpu or cuda"),
        (["--device", "cuda:99"], r"--device 'cuda:99' cannot be used"),
        (["--device", "meta"], r"--device 'meta' cannot be used"),
        (["--device", ""], r"--device '' cannot be used"),
        (["--device", "cpu:x"], r"--device 'cpu:x' cannot be used"),
        (["--device", "cpu\0"], r"--device 'cpu\\x00' cannot be used"),
        (["--device", "two\nlines"], r"--device 'two\\nlines' cannot be used"),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_options_of_every_command(
    command: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, error_of([*command, *words], capsys))


@pytest.mark.parametrize("command", [BENCH, [*CALIBRATE, "--out", "x.json"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--call", "guidance"], "--call guidance: write KEY=VALUE"),
        (["--call", "=3"], "--call =3: '' is no name of an argument"),
        (["--call", "a b=3"], "'a b' is no name of an argument"),
        (["--call", "a=1", "a=2"], "--call gives a twice"),
        (["--seeds", "0"], "--seeds is 0; it must be from 1 to"),
        (["--seeds", "1" + "0" * 20], "--seeds is 10*; it must be"),
        (["--first-seed", "-1"], "--first-seed is -1; it must be from 0 to"),
        (["--first-seed", str(2**63)], "--first-seed is 9223372036854775808"),
        (["--first-seed", str(2**63 - 1), "--seeds", "2"], "the last seed must be below"),
    ],
)
def test_options_of_pipelines(
    command: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, error_of([*command, *words], capsys))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: command"),
        (["fly"], "invalid choice: 'fly'"),
        (["bench"], "the following arguments are required: bench"),
        (["bench", "quality"], "required: --prompts"),
        ([*BENCH, "--methods", "two\nlines"], "method 'two.nlines'"),
        ([*BENCH, "--methods", "fast:codebook=" + "[" * 9999], "method"),
        ([*BENCH, "--methods", "taylorseer:num_inference_steps=1" + "0" * 30], "it must be <="),
        ([*BENCH, "--methods", "adacache:max_warmup_steps=1" + "0" * 30], "must be <= 100000"),
        ([*BENCH, "--methods", "x" * 300 + ".json"], "there is no file 'xxx"),
        ([*BENCH, "--methods", "none.json:computed_steps=3"], "there is no file 'none.json'"),
        ([*BENCH, "--methods", "mag-cache:ratios=none.json"], "holds no list of numbers"),
        ([*BENCH, "--against", "none"], "--against is 'none'"),
        ([*BENCH, "--out", "file"], "--out: cannot write to file, a file; name a folder"),
        ([*BENCH, "--out", "file/below"], "cannot write to file/below: Not a directory"),
        ([*BENCH, "--out", "x" * 300], "File name too long"),
        ([*CALIBRATE, "--out", "none/x.json"], "cannot write none/x.json: there is no folder none"),
        ([*CALIBRATE, "--out", "."], "it is a folder or a device"),
        ([*CALIBRATE, "--out", "/dev/null"], "cannot write /dev/null: it is a folder or a device"),
        ([*CALIBRATE, "--out", "x" * 300], "File name too long"),
        ([*CALIBRATE, "--out", "x.json", "--trials", "0"], "--trials is 0"),
        ([*CALIBRATE, "--out", "x.json", "--rounds", "-1"], "--rounds is -1"),
        ([*CALIBRATE, "--out", "x.json", "--refine", "-1"], "--refine is -1"),
        (["calibrate", "--prompts", "a", "b", "--target-psnr", "nan", "--out", "x"], "psnr is nan"),
        (["demo", "--guidance", "nan"], "--guidance is nan; it must be finite"),
        (["demo", "--seed", "-1"], "--seed is -1; it must be from 0 to"),
        (["demo", "--config", "none"], "--config none: with these --steps"),
        (["demo", "--out", "file"], "cannot write to file, a file"),
        (["demo", "--weights", "none"], "is missing in none"),
    ],
)
def test_other_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert re.search(message, error_of(words, capsys))


LONG = "a white six moving fast " * 20


@pytest.mark.parametrize(
    "prompt", [LONG, LONG + ".txt", "a\0b", "two\nlines", "two\nlines.txt", "folder", "x" * 10**5]
)
def test_a_prompt_is_no_file(prompt: str) -> None:
    Path("folder").mkdir()
    assert read_prompts([prompt]) == [prompt]


def test_a_file_of_prompts_that_is_no_text() -> None:
    Path("prompts.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"--prompts is prompts\.txt, which is no text in UTF-8"):
        read_prompts(["prompts.txt"])
    Path("prompts.txt").write_text("\u00e9t\u00e9\n", encoding="utf-8")
    assert read_prompts(["prompts.txt"]) == ["\u00e9t\u00e9"]


def test_values_of_calls() -> None:
    words = ["a=1", "b=[1, 2]", "c=text", "d=", "e=x=y", "f={[]}", "g=" + "(" * 9999]
    assert call_arguments(words) == {
        "a": 1, "b": [1, 2], "c": "text", "d": "", "e": "x=y", "f": "{[]}", "g": "(" * 9999
    }  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        ValueError(""),
        OSError(28, "No space left on device", "x.json"),
        ImportError("no module"),
        ak.ArenaError("no memory"),
        torch.OutOfMemoryError("no memory\nat all\x1b[31m"),
        UnicodeEncodeError("ascii", "\udcff", 0, 1, "no such character"),
    ],
)
def test_errors_while_a_command_runs(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(info, "run", fail)
    assert error_of(["info"], capsys).startswith("adacache info: ")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise KeyError("bug")

    for module in (info, demo, calibrate):
        monkeypatch.setattr(module, "run", fail)
    for words in (["info"], ["demo"], [*CALIBRATE, "--out", "x.json"]):
        with pytest.raises(KeyError):
            cli.main(words)


def test_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "adacache info: interrupted\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written() -> None:
    command = [sys.executable, "-m", "adacache_kernels", "info"]
    folder = Path(ak.__file__).parent.parent
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert done.returncode == 2
    assert re.fullmatch(r"adacache info: .*No space left on device\n", done.stderr), done.stderr


def test_messages_are_one_printable_line() -> None:
    assert one_line("a\n  b\tc\r\nd") == "a b c d"
    assert one_line("\x1b[31mred\u202e\udcff") == r"\x1b[31mred\u202e\udcff"
