"""The runs of `adacache bench quality`: rows, operations, resumed studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from adacache_kernels.evaluate.results import Row, read_rows
from adacache_kernels.evaluate.runner import Study
from adacache_kernels.evaluate.table_lines import table_lines
from adacache_kernels.evaluate.tables import markdown
from adacache_kernels.measure.costs import counted_work
from tests.support.tiny_study import CASES, NAMES, STEPS, parsed, subject


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("study")
    return Study(subject(), parsed(*NAMES), STEPS).run(CASES, folder)


def by_method(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row.method == name]


def test_every_method_has_a_row_for_every_video(rows: list[Row]) -> None:
    for name in ("full", *NAMES):
        assert [(row.prompt, row.seed) for row in by_method(rows, name)] == [
            (case.prompt, case.seed) for case in CASES
        ]


def test_the_values_of_rows(rows: list[Row]) -> None:
    full, adacache, even, fewer, other = (by_method(rows, n)[0] for n in ("full", *NAMES))
    assert (full.psnr, full.ssim, full.computed, full.cache_bytes) == (None, 1.0, STEPS, 0)
    assert adacache.computed_steps == [1, 2, 5, 7, 8] and adacache.distances[0] is None
    assert all(distance is not None for distance in adacache.distances[1:])
    assert even.computed == 5
    assert (fewer.scheduled, fewer.computed, fewer.waits) == (4, 4, 0)
    assert fewer.curve == "fewer steps" and other.curve == "fewer steps, UniPCMultistep"
    for row in (adacache, even, fewer, other):
        assert row.psnr is not None and 10 < row.psnr < 100 and row.ssim < 1
        assert row.seconds > 0 and row.full_seconds == full.full_seconds
    assert adacache.cache_bytes and adacache.cache_bytes > 0 and adacache.peak_bytes is None


def test_the_pipeline_is_as_before_after_every_method() -> None:
    own = subject()
    before = vars(own.pipe.transformer).copy(), own.pipe.scheduler
    for method in parsed(*NAMES):
        with method.applied(own.pipe):
            changed = vars(own.pipe.transformer) != before[0] or own.pipe.scheduler is not before[1]
            assert changed == (method.name != "steps:4")
        assert vars(own.pipe.transformer) == before[0] and own.pipe.scheduler is before[1]


def test_flops_are_counted_for_the_first_video(rows: list[Row]) -> None:
    """A computed step has a fixed number of operations; a reused step has almost none."""
    full = by_method(rows, "full")
    assert full[0].flops is not None and full[1].flops is None
    adacache, fewer = by_method(rows, NAMES[0])[0], by_method(rows, "steps:4")[0]
    assert fewer.flops == full[0].flops // 2
    computed_only = full[0].flops * len(adacache.computed_steps) / STEPS
    assert computed_only < adacache.flops < computed_only * 1.15  # type: ignore[operator]


def test_flops_of_a_known_module() -> None:
    """Two operations for a multiplication and an addition: products, and attention on a CPU."""
    linear = torch.nn.Linear(3, 5, bias=False)
    with counted_work(linear) as work:
        linear(torch.ones(2, 3))
        linear(torch.ones(4, 3))
    assert work.flops == [2 * 2 * 3 * 5, 2 * 4 * 3 * 5] and work.total == 180

    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    attention = Attention()
    with counted_work(attention) as work, torch.no_grad():
        attention(torch.ones(1, 4, 6, 8))
    assert work.total == 2 * (2 * 4 * 6 * 6 * 8)


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    """Existing rows stay unchanged; only the missing ones are generated."""
    own = subject()
    half = Study(own, parsed(NAMES[0]), STEPS, flops=False)
    half.run(CASES[:1], tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    reports: list[str] = []
    whole = Study(own, parsed(*NAMES[:2]), STEPS, flops=False)
    resumed = whole.run(CASES[:2], tmp_path, lambda doing, done, total: reports.append(doing))
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[: len(lines)] == lines
    assert len(resumed) == 6 and len(reports) == 4
    assert len({row.key for row in resumed}) == 6
    assert len(list((tmp_path / "strips").iterdir())) == 6


def test_rows_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"method": "full"}\n')
    with pytest.raises(ValueError, match=r"line 1: it has no .* written by another version"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("half a li")
    with pytest.raises(ValueError, match="line 1: this is no JSON file"):
        read_rows(tmp_path / "rows.jsonl")


def test_columns_that_were_not_measured_are_left_out(rows: list[Row]) -> None:
    text = "\n".join(markdown(table_lines(rows)))
    assert "TFLOPs" in text and "LPIPS" not in text and "VBench" not in text and "GiB" not in text
    assert text.count("\n") == len(NAMES) + 2
    assert "| full | 8.0 | 1.000 | equal |" in text
