"""The quality benchmark: its rows, its tables, its oracle, and going on where it stopped."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import quality
import quality_methods as methods
import quality_report as report
from adacache_kernels.demo.pipeline import load_pipeline

CASES = [("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")]


def row(
    case: tuple[str, str], name: str, computed: int, psnr: float, budget: int
) -> dict[str, str]:
    values = quality.Row(
        key=f"50/{budget}/DDIM/{name}/{computed if name == report.EVEN else ''}",
        name=name,
        solver="DDIM",
        steps=50,
        budget=budget,
        prompt=case[0],
        seed=int(case[1]),
        computed=computed,
        psnr=psnr,
        ssim=0.9,
        psnr_own=psnr,
        seconds=computed / 10,
        full_seconds=5.0,
        cache_bytes=2**20,
    )
    return {key: str(value) for key, value in asdict(values).items()}


def made_up() -> list[dict[str, str]]:
    """Even: one dB a step, but two videos profit twice as much. Adaptive: 2 dB above that."""
    rows = []
    for place, case in enumerate(CASES):
        slope = 1 + place % 2
        rows.append(row(case, report.FULL, 50, math.inf, 0))
        rows += [
            row(case, report.EVEN, n, 20 + slope * n, n) for n in (7, 9, 11, 13, 15, 17, 21, 25)
        ]
        computed = 16 + 2 * (place % 2)
        rows.append(row(case, report.ADAPTIVE, computed, 22 + slope * 17, 17))
    return rows


def test_a_schedule_is_compared_at_its_own_mean_number_of_steps() -> None:
    (pair,) = report.paired(made_up())
    assert pair.computed == 17
    assert pair.gain == pytest.approx(2)
    assert pair.standard_error == pytest.approx(0)
    assert (pair.worst, pair.even_worst) == (39, 37)


def test_the_oracle_gives_steps_to_those_who_profit() -> None:
    """Mean 17 of 7 to 25, slopes 1 and 2: the best is 9 and 25, 0.5 * (9 + 50) against 25.5."""
    (pair,) = report.paired(made_up())
    assert pair.oracle_gain == pytest.approx(0.5 * (9 + 2 * 25) - 1.5 * 17)


def test_lines() -> None:
    lines = {(line.method, line.budget): line for line in report.lines(made_up())}
    adaptive = lines[report.ADAPTIVE, 17]
    assert adaptive.videos == 4
    assert (adaptive.computed, adaptive.computed_least, adaptive.computed_most) == (17, 16, 18)
    assert adaptive.psnr == pytest.approx((39 + 56) / 2)
    assert adaptive.psnr_worst == 39
    error = (10**-3.9 + 10**-5.6) / 2
    assert adaptive.psnr_of_mse == pytest.approx(-10 * math.log10(error))
    assert adaptive.speedup == pytest.approx((50 / 16 + 50 / 18) / 2)
    assert adaptive.cache_mib == 1
    assert lines[report.FULL, 0].psnr == report.EQUAL


def test_files(tmp_path: Path) -> None:
    rows = made_up()
    with (tmp_path / "raw.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report.write(tmp_path / "raw.csv", tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| 50 | profile, adaptive | DDIM | 17.0 (16 to 18) |" in text
    assert "+2.00 +- 0.00" in text
    assert (tmp_path / "quality.png").stat().st_size > 10_000
    assert len(report.read(tmp_path / "table.csv")) == len(report.lines(rows))
    assert report.read(tmp_path / "none.csv") == []


def test_every_method_has_a_row_of_its_own() -> None:
    for steps, quick in ((50, False), (100, False), (50, True)):
        rows = [*methods.full_runs(steps), *methods.methods(steps, Path("p.json"), quick)]
        assert len({method.key for method in rows}) == len(rows)
        names = {method.name for method in rows}
        assert {methods.FEWER, methods.EVEN, methods.EVEN_REUSE, methods.ADAPTIVE} <= names
        solvers = {m.solver for m in rows if m.name == methods.FEWER}
        assert solvers == set(methods.SOLVERS)


def test_rows_of_a_video() -> None:
    """Generated for real, with few steps: full runs, an even forecast, fewer steps."""
    import diffusers

    pipe = load_pipeline()
    pipe.solvers = {
        name: getattr(diffusers, cls).from_config(pipe.scheduler.config)
        for name, cls in methods.SOLVERS.items()
    }
    wanted = [
        methods.Method(methods.FEWER, 8, 5, "UniPC", 5),
        methods.Method(methods.EVEN, 8, 5, "DDIM", 8, {"forecast": 1, "schedule": [1, 3, 5, 7, 8]}),
    ]
    video = quality.Video("a white six moving fast", 3, 8)
    rows = {(r.name, r.solver): r for r in quality.generate_rows(pipe, video, wanted)}
    assert len(rows) == 5
    assert rows[methods.FULL, "DDIM"].psnr == math.inf
    assert rows[methods.FULL, "UniPC"].psnr < 60
    assert rows[methods.FULL, "UniPC"].psnr_own == math.inf
    # Two layouts of two kept steps; guidance in the batch; 256 tokens of 128 channels in float32.
    fewer, even = rows[methods.FEWER, "UniPC"], rows[methods.EVEN, "DDIM"]
    assert (fewer.computed, even.computed) == (5, 5)
    assert fewer.psnr != fewer.psnr_own
    assert even.psnr == even.psnr_own > 15
    assert (fewer.cache_bytes, even.cache_bytes) == (0, 2 * 2 * 256 * 128 * 4)
    assert 0 < even.seconds < 60


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only videos with missing rows are made, and no row is written twice."""
    made: list[str] = []

    class Pool:
        def __init__(self, jobs: int, initializer: Any) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def imap_unordered(self, work: Any, tasks: Any) -> Any:
            for video, missing in tasks:
                made.append(video.prompt)
                full = methods.full_runs(video.steps)
                yield [
                    quality.Row(
                        m.key, m.name, m.solver, 50, m.budget, video.prompt, video.seed,
                        9, 30.0, 0.9, 30.0, 1.0, 2.0, 0,
                    )
                    for m in [*full, *missing]
                ]  # fmt: skip

    class Context:
        pass

    monkeypatch.setattr(Context, "Pool", Pool, raising=False)
    monkeypatch.setattr(quality.multiprocessing, "get_context", lambda _: Context)
    raw = tmp_path / "raw.csv"
    videos = [quality.Video(prompt, 0, 50) for prompt in ("one", "two", "three")]
    quality.run(videos[:2], True, raw, 1)
    first = report.read(raw)
    quality.run(videos, True, raw, 1)
    assert made == ["one", "two", "three"]
    rows = report.read(raw)
    assert len(rows) == len(first) / 2 * 3
    assert len({(r["key"], r["prompt"]) for r in rows}) == len(rows)
