"""FILE.py:FUNCTION: the file, the function, its arguments and its result are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adacache_kernels.evaluate import pipelines

START = """import numpy as np, torch
pipe = torch.nn.Linear(1, 1)
def video(prompt, steps, seed):
    return np.zeros((2, 4, 4, 3))
"""
BUILD = "def build(device):\n    return pipe, video\n"


def load(folder: Path, code: str, name: str = "build", **arguments: Any) -> pipelines.Subject:
    path = folder / "own.py"
    path.write_text(START + code)
    return pipelines.load(f"{path}:{name}", device="cpu", arguments=arguments)


def test_a_pipeline_from_a_file(tmp_path: Path) -> None:
    own = load(tmp_path, "def build(device, scale=1):\n    return pipe, video\n", scale=3)
    video = own.generate("a", 1, 0)
    assert video.shape == (2, 4, 4, 3) and video.dtype == np.float32
    assert own.pipe.weight.shape == (1, 1)
    code = "class P:\n    transformer = pipe\ndef build(device):\n    return [P(), video]\n"
    assert load(tmp_path, code).pipe.transformer is not None
    code = BUILD + "def video(*_):\n    return torch.ones(1, 2, 2, 3, dtype=torch.bfloat16)\n"
    assert load(tmp_path, code).generate("a", 1, 0).max() == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.py:build", r"nothing\.py is no file; give FILE\.py:FUNCTION"),
        ("nothing.py", r"nothing\.py is no file; give FILE\.py:FUNCTION"),
        ("x" * 300 + ".py:build", "is no file"),
        ("a\0b.py:build", "is no file"),
        (".py:", "is no file"),
        ("folder.py:build", r"folder\.py is no file"),
    ],
)
def test_no_such_file(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    with pytest.raises(ValueError, match=message):
        pipelines.load(name)


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (BUILD, "nothing", r"has no function nothing; it has to return \(pipe"),
        (BUILD, "", "has no function named; it has to return"),
        (BUILD, "pipe.weight", r"has no function pipe\.weight"),
        ("build = 3", "build", "has no function build"),
        ("def build(:", "build", r"own\.py cannot be run: SyntaxError: .*line 5"),
        ("x = 1 / 0", "build", r"cannot be run: ZeroDivisionError: .* \(line 5\)"),
        ("import nothing_here", "build", "cannot be run: ModuleNotFoundError: No module"),
        ("raise SystemExit(3)", "build", "cannot be run: SystemExit: 3"),
        (
            "def build():\n    return pipe, video",
            "build",
            r"own\.py:build takes \(\), and is called",
        ),
        ("def build(device, size):\n    return 1", "build", "missing a required argument: 'size'"),
        (
            "def build(device):\n    raise KeyError('k')",
            "build",
            r"raised KeyError: 'k' \(line 6\)",
        ),
        ("def build(device):\n    return pipe", "build", "build returned Linear.*it has to return"),
        ("def build(device):\n    return None", "build", "build returned None; it has to return"),
        ("def build(device):\n    return pipe, 3", "build", "it has to return"),
        (
            "def build(device):\n    return 'cpu', video",
            "build",
            "its pipe 'cpu' has no transformer",
        ),
    ],
)
def test_what_is_wrong_is_named(code: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, code, name)


def test_an_argument_that_the_function_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unexpected keyword argument 'height'; --call gives"):
        load(tmp_path, BUILD, height=3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("np.zeros((2, 4, 4))", r"returned float64 of shape \(2, 4, 4\); expected \[frames"),
        ("np.zeros((2, 3, 4, 4))", r"of shape \(2, 3, 4, 4\)"),
        ("None", r"returned object of shape \(\)"),
        ("np.full((2, 4, 4, 3), 255)", "returned values from 0 to 255; expected 0 to 1"),
        ("np.full((2, 4, 4, 3), np.nan)", "returned values from nan"),
        ("-np.ones((2, 4, 4, 3))", "returned values from -1 to"),
        ("[['text']]", "expected"),
    ],
)
def test_a_result_that_is_no_video(value: str, message: str, tmp_path: Path) -> None:
    own = load(tmp_path, f"{BUILD}def video(*_):\n    return {value}\n")
    with pytest.raises(ValueError, match=rf"generate\(\) of .*own\.py:build .*{message}"):
        own.generate("a", 1, 0)
