"""The baselines in `adacache bench quality`: their names and their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels.evaluate.baseline_spec import baseline_config
from adacache_kernels.evaluate.method_spec import parse_method
from adacache_kernels.evaluate.results import Case
from adacache_kernels.evaluate.runner import Study
from tests.support.tiny_study import STEPS, subject


@pytest.mark.parametrize(
    ("name", "presets", "options", "config"),
    [
        ("pab", ["latte-fast"], {}, ak.baselines.PABConfig.preset("latte-fast")),
        ("pab", ["latte-slow"], {"cross": 7}, ak.baselines.PABConfig.preset("latte-slow", cross=7)),
        ("pab", [], {"spatial": 3}, ak.baselines.PABConfig(spatial=3)),
        (
            "taylorseer",
            [],
            {"interval": 2, "order": 1},
            ak.baselines.TaylorSeerConfig(interval=2, order=1),
        ),
        ("t-gate", ["latte"], {}, ak.baselines.TGATEConfig.preset("latte")),
        ("delta-dit", [], {"front": (0, 2)}, ak.baselines.DeltaDiTConfig(front=(0, 2))),
        ("interval", [], {"interval": 4}, ak.baselines.FixedIntervalConfig(interval=4)),
        (
            "per-layer",
            [],
            {"codebook": "slow"},
            ak.baselines.AdaCachePerLayerConfig(codebook="slow"),
        ),
        ("first-block", [], {"threshold": 0.2}, ak.baselines.FirstBlockCacheConfig(threshold=0.2)),
        ("teacache", ["wan-14b"], {}, ak.baselines.TeaCacheConfig.preset("wan-14b")),
        ("mag-cache", [], {"ratios": (1, 0.9)}, ak.baselines.MagCacheConfig(ratios=(1, 0.9))),
    ],
)
def test_names_give_configs(
    name: str, presets: list[str], options: dict[str, Any], config: Any
) -> None:
    assert baseline_config("", name, presets, options) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pab:latte", r"method 'pab:latte': the preset is 'latte'; there are 'latte-slow'"),
        ("pab:latte-slow:latte-fast", r"'latte-fast' is no option; write key=value"),
        ("first-block:0.2", r"'0\.2' is no option; write key=value"),
        ("first-block:treshold=0.2", r"no option treshold; there are .*threshold"),
        ("t-gate:gate_step=0", r"method 't-gate:gate_step=0': gate_step is 0"),
        ("mag-cache", r"method 'mag-cache': ratios is empty"),
        ("t-gates", r"there are fast.* pab, taylorseer, t-gate, delta-dit"),
    ],
)
def test_wrong_names(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_method(text, STEPS)


def test_rows_have_the_work_of_methods_that_reuse_parts_of_a_step(tmp_path: Path) -> None:
    names = (
        "pab:spatial=2:temporal=2:cross=2:window=(0,1000)",
        "delta-dit:boundary=0:front=(0,1)",
        "interval:interval=2",
    )
    parsed = [parse_method(name, STEPS) for name in names]
    rows = Study(subject(), parsed, STEPS).run([Case("a", 0)], tmp_path)
    full, pab, delta, interval = rows
    assert (full.computed, interval.computed) == (STEPS, STEPS // 2)
    # 4 of 8 steps reuse 9 of 15 modules; 1 of 3 pairs of blocks.
    assert pab.computed == round(STEPS * (1 - 0.5 * 9 / 15))
    assert delta.computed == round(STEPS * (1 - 0.5 / 3))
    assert full.flops and interval.flops and pab.flops and delta.flops
    assert interval.flops < pab.flops < full.flops and interval.flops < delta.flops < full.flops
    assert all(row.cache_bytes for row in (pab, delta, interval))
    assert [row.curve for row in rows[1:]] == ["pab", "delta-dit", "interval"]
