"""The scripts of bench/quality: the paper's table and the ablations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adacache_kernels.evaluate.method_spec import parse_method
from tests.support.tiny_study import fixed_row


@pytest.mark.parametrize("steps", [50, 100])
def test_the_methods_of_the_papers_table_are_known(steps: int, tmp_path: Path) -> None:
    from bench.quality import paper_table

    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps([1.0] * steps))
    names = paper_table.methods(steps, ratios)
    assert len(set(names)) == len(names) >= 25
    curves = {parse_method(name, steps).curve for name in names}
    assert {"pab", "t-gate", "delta-dit", "per-layer", "first-block", "mag-cache"} <= curves
    assert {"fewer steps", "fewer steps, DPMSolverMultistep", "forecast", "slow"} <= curves
    assert len(paper_table.PROMPTS) == len(set(paper_table.PROMPTS)) == 24


def test_methods_with_about_equal_work_share_a_table() -> None:
    from bench.quality import paper_table

    near = {paper_table.ours(50, 25): (25, 40.0), "even:25": (27, 35.0)}
    far = {"fast": (11, 30.0), paper_table.ours(50, 17): (17, 38.0)}
    rows = [fixed_row(name, psnr, count, 1.0) for name, (count, psnr) in (near | far).items()]
    halves = paper_table.matched(rows, 50).split("17 of 50")[0].splitlines()
    cells = [line.split(" | ") for line in halves if line.startswith("| ")][1:]
    assert [cell[0].strip("| ") for cell in cells] == list(near)
    assert [cell[3] for cell in cells] == ["+0.00 +- 0.00", "-5.00 +- 0.00"]


def test_the_variants_of_the_ablations_compute_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds are scaled to equal computed steps; here 20 / scale, and 40 / scale for l2."""
    from bench.quality import ablations

    def mean_computed(pipe: Any, config: Any, settings: dict[str, Any], cases: Any) -> float:
        thresholds = list(dict(config.codebook if config else settings["codebook"]))
        return (40 if settings.get("metric") == "l2" else 20) / (thresholds[0] / 0.075)

    monkeypatch.setattr(ablations, "load_pipeline", lambda weights: None)
    monkeypatch.setattr(ablations, "mean_computed", mean_computed)
    variants = ablations.codebook_methods()
    assert len(variants) == len(ablations.VARIANTS) + 2
    assert all(parse_method(name, ablations.STEPS) for name in variants.values())
    codebook = variants["L2"].split("{")[1]
    assert float(codebook.split(":")[0]) == pytest.approx(0.15, rel=0.05)


def test_ablations_by_motion_and_by_budget() -> None:
    from bench.quality import ablations

    words = {"plain": "adacache:codebook={1: 2}", "MoReg": "adacache:codebook={2: 2}"}
    rows = [
        fixed_row(name, psnr + fast, 17, 1.0, prompt=f"a white six {motion}")
        for psnr, name in zip((30.0, 31.0), words.values(), strict=True)
        for fast, motion in enumerate(("standing still", "moving fast"))
    ]
    rows += [fixed_row(name.format(17), 40.0, 17, 1.0) for name in ablations.FORECASTS]
    tables_of = ablations.report(rows, words).split("Codebooks, ")
    fast = next(text for text in tables_of if text.startswith("moving fast"))
    assert "| plain | 17.0 | 31.0 / 31.0 / 31.0 | +0.00 +- 0.00 |" in fast
    assert "| MoReg | 17.0 | 32.0 / 32.0 / 32.0 | +1.00 +- 0.00 |" in fast
    assert tables_of[-1].count("+0.00 +- 0.00") >= len(ablations.FORECASTS)
    for name in (text.format(17) for text in ablations.FORECASTS):
        assert parse_method(name, ablations.STEPS)
