"""Tables and the contact sheet of `adacache bench quality`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from adacache_kernels.evaluate import contact_sheet
from adacache_kernels.evaluate.table_lines import table_lines
from adacache_kernels.evaluate.tables import markdown
from tests.support.tiny_study import fixed_row


def test_a_line_is_the_mean_over_videos() -> None:
    rows = [
        fixed_row("m", 20.0, 4, 2.0, flops=3 * 10**12),
        fixed_row("m", 40.0, 6, 4.0, seed=1, peak_bytes=2**30, lpips=0.5),
    ]
    (line,) = table_lines(rows, {"m": 0.75})
    assert (line.videos, line.computed, line.computed_least, line.computed_most) == (2, 5, 4, 6)
    assert line.psnr == 30 and line.psnr_worst == 20
    assert line.psnr_of_mse == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    assert (line.speedup, line.pipeline_speedup) == (3.0, pytest.approx((9 / 3 + 9 / 5) / 2))
    assert (line.teraflops, line.peak_gib, line.cache_mib, line.waits) == (3, 1, 1, 0.5)
    assert (line.lpips, line.scores) == (0.5, 0.75)


def test_the_gain_is_a_mean_over_videos() -> None:
    """Differences 2 and 4 of the videos of both methods: 3 +- sqrt(2) / sqrt(2)."""
    rows = [
        fixed_row("ours", psnr, 4, 2.0, seed=seed) for seed, psnr in enumerate((32.0, 24.0, 99.0))
    ]
    rows += [fixed_row("theirs", psnr, 4, 2.0, seed=seed) for seed, psnr in enumerate((30.0, 20.0))]
    ours, theirs = table_lines(rows, against="theirs")
    assert (ours.gain, ours.gain_error) == (3.0, pytest.approx(1.0))
    assert (theirs.gain, theirs.gain_error) == (0.0, 0.0)
    assert "| +3.00 +- 1.00 |" in "\n".join(markdown([ours, theirs]))
    assert "gain" not in "\n".join(markdown(table_lines(rows)))


def test_the_contact_sheet(tmp_path: Path) -> None:
    """Each strip has eight frames, large ones are resized; the sheet shows eight of nine videos."""
    from PIL import Image

    rows = [fixed_row("fast", 30.0, 4, 1.0, seed=seed) for seed in range(9)]
    for row in rows:
        path = contact_sheet.strip_path(tmp_path, row)
        contact_sheet.save_strip(np.full((16, 192, 100, 3), 0.1 * row.seed, np.float32), path)
        with Image.open(path) as strip:
            assert strip.size == (8 * 50, 96)
    contact_sheet.save_contact_sheet(rows, tmp_path)
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.size == (contact_sheet.LABEL_WIDTH + 8 * 50, 8 * (96 + contact_sheet.GAP))
        middles = [sheet.getpixel((sheet.width - 200, 99 * row + 48)) for row in range(8)]
    assert middles == [3 * (round(25.5 * seed),) for seed in range(8)]
