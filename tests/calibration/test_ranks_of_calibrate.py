"""`adacache calibrate` on the ranks of a launcher."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adacache_kernels.calibration.jobs import Job, packed_jobs, unpacked_jobs
from adacache_kernels.schedule import Profile
from adacache_kernels.schedule.codebook import Codebook
from tests.support.launched import Launch, launch
from tests.support.tiny_calibration import subject

KINDS = {
    "profile": ["--target-speedup", "1.5", "--trials", "2", "--rounds", "2", "--refine", "1"],
    "codebook": ["--target-psnr", "40", "--kind", "codebook", "--rounds", "2"],
}


def launched(folder: Path, kind: str, *words: str, **how: Any) -> Launch:
    folder.mkdir(exist_ok=True)
    prompts = ["--prompts", "a", "ab", "abc", "--held-out", "abcd", "--steps", "8"]
    out = ["--out", str(folder / "out.json"), "--rank-timeout", "4"]
    return Launch(["calibrate", *prompts, *KINDS[kind], *out, *words], folder, subject, **how)


def result_in(folder: Path) -> Any:
    assert not (folder / "out.json.partial").exists()
    return _rounded(json.loads((folder / "out.json").read_text()))


def _rounded(value: Any) -> Any:
    """Return a JSON value to compare with: sums at other addresses round otherwise."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return pytest.approx(value, rel=1e-2, abs=1e-6) if isinstance(value, float) else value


def plain(folder: Path) -> Any:
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_write_the_file_of_one(kind: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (alone,) = launch(launched(one, kind), size=1)
    first, second = launch(launched(two, kind))
    assert (alone.code, first.code, second.code) == (0, 0, 0), first.errors + second.errors
    assert plain(two) == result_in(one)
    assert first.generated + second.generated == alone.generated
    assert min(first.generated, second.generated) > alone.generated / 4
    assert f"It took {alone.generated} generations" in first.out
    assert second.out == second.errors == "" and not (two / "out.json.partial").exists()


def test_a_dead_rank_is_named_and_the_rest_is_made_later(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (alone,) = launch(launched(one, "codebook"), size=1)
    first, second = launch(launched(two, "codebook", dying=3))
    assert (first.code, second.code) == (2, -signal.SIGKILL)
    last = first.errors.splitlines()[-1]
    assert "calibrate: rank 1 of 2 has given no sign of life for 4 seconds" in last
    done = first.generated + 2
    first, second = launch(launched(two, "codebook"))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert plain(two) == result_in(one)
    # The first case is generated again, to show that the pipeline is the same.
    assert first.generated + second.generated <= alone.generated - done + 2


def test_an_error_of_rank_0_ends_all(tmp_path: Path) -> None:
    words = ["--target-speedup", "50", "--kind", "codebook"]
    launched_words = launched(tmp_path, "codebook").words
    start = launched_words.index("--target-psnr")
    given = [*launched_words[:start], *words, *launched_words[start + 4 :]]
    first, second = launch(Launch(given, tmp_path, subject))
    assert (first.code, second.code) == (2, 2)
    assert "target_speedup=50 is out of reach" in first.errors
    assert "rank 0 of 2 stopped with ValueError: target_speedup=50" in second.errors


def test_jobs_keep_all_digits(tiny_profile: Profile) -> None:
    third = np.float64(1) / 3
    profile = Profile(
        model=tiny_profile.model,
        scheduler=tiny_profile.scheduler,
        num_steps=tiny_profile.num_steps,
        gram=tiny_profile.gram + third,
        span_grams={"a/b": tiny_profile.gram * third},
        sensitivity=np.full(tiny_profile.num_steps, third),
        moreg_hyp=(float(third), 0.0, 1.0),
        notes={"it": [1]},
    )
    jobs = [Job("error", 3, {"profile": profile, "schedule": [1, 4]}), Job("error", 1, {})]
    jobs[1] = Job("pair", 1, {"profile": profile, "computed_steps": float(third)}, True)
    found = unpacked_jobs(packed_jobs(jobs))
    assert [job.key("it") for job in found] == [job.key("it") for job in jobs]
    assert [job.patched_first for job in found] == [False, True]
    again = found[0].settings["profile"]
    for name in ("gram", "sensitivity"):
        np.testing.assert_array_equal(getattr(again, name), getattr(profile, name))
    np.testing.assert_array_equal(again.span_grams["a/b"], profile.span_grams["a/b"])
    assert (again.moreg_hyp, again.notes) == (profile.moreg_hyp, profile.notes)

    settings = {"codebook": Codebook((0.1, math.inf), (3, 1)), "moreg_hyp": (0.1, 0.2, 1.0)}
    (job,) = unpacked_jobs(packed_jobs([Job("pair", 0, settings)]))
    assert job.settings == settings
