"""Random words for the command line: every error has one line, whatever they are."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from adacache_kernels.cli import main as cli
from adacache_kernels.evaluate import pipelines

WORDS = (
    "bench", "quality", "calibrate", "demo", "--prompts", "--prompt", "--methods", "--steps",
    "--seeds", "--first-seed", "--device", "--threads", "--call", "--out", "--against", "--lpips",
    "--held-out", "--target-speedup", "--target-psnr", "--kind", "--profile", "--trials",
    "--config", "--guidance", "--seed", "--weights", "--pipeline", "a white six", "codebook",
    "profile", "fast", "x.json", "x.json:computed_steps=3", "steps:3", "even:5", "pab:latte-slow",
    "taylorseer:order=1", "FirstBlockCache:threshold=0.1", "x.py:build", "guidance=3", "=",
    "a=b=c", "cpu", "cuda:7",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "9" * 40, "1e999", "nan", "inf", "-0", "1_0", "\0", "\n", "\udcff",
    "\u0661", "[" * 3000, "(" * 3000 + ")" * 3000, "{[]: 1}", "x" * 300, ":", "::", "=", ",,",
    ".", "..", "/", "--", "@file", "%s", "{}", "adacache:codebook={nan: 1}",
    "adacache:schedule=[0]", "fast:", "adacache:cache_loc=" + "9" * 40,
    "adacache:moreg_steps=(1, " + "9" * 40 + ")", "even:x",
    "adacache:moreg_hyp=(1, 1, 1" + "0" * 400 + ")", "adacache:profile={}", "steps:3:object",
    "steps:3:__init__", "object:a=1", "interval:interval=1" + "0" * 30, "mag-cache:ratios=x.json",
    "pab:window=(nan, 1)", "delta-dit:front=(0, " + "9" * 40 + ")", "t-gate:gate_step=-1",
    "teacache:coefficients=[" + "9" * 400 + "]", "MagCache:ratios=[[]]", "refined:1",
)  # fmt: skip


class Loaded(Exception):
    """The arguments are right: a pipeline would be loaded."""


def words_of(draw: random.Random) -> list[str]:
    start = draw.choice(
        (
            ["bench", "quality", "--prompts", "a"],
            ["calibrate", "--prompts", "a", "b", "--target-speedup", "2", "--out", "new.json"],
            ["demo"],
            [],
        )
    )
    return start + [draw.choice(draw.choice((WORDS, VALUES))) for _ in range(draw.randrange(7))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def load(*_: object, **__: object) -> None:
        raise Loaded

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipelines, "load", load)
    monkeypatch.setattr("adacache_kernels.demo.pipeline.load_pipeline", load)
    (tmp_path / "x.json").write_text('{"gram": NaN}')
    (tmp_path / "x.py").write_text("raise SystemExit")
    return tmp_path


def test_random_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(17)
    counts = {"loaded": 0, "refused": 0}
    for _ in range(400):
        words = words_of(draw)
        try:
            code: object = cli.main(words)
        except SystemExit as error:
            code = error.code
        except Loaded:
            counts["loaded"] += 1
            continue
        out, line = capsys.readouterr()
        if code == 0 and out.startswith("usage"):
            continue
        counts["refused"] += 1
        assert code == 2, words
        assert re.fullmatch(r"adacache[^\n]*: [^\n]+\n", line) and line[:-1].isprintable(), words
    assert min(counts.values()) > 20, counts
