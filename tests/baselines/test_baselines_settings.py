"""The settings of the baselines: refused values, and JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import adacache_kernels as ak

WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ak.baselines.PABConfig(spatial=0), ValueError, r"spatial is 0; it must be >= 1"),
    (lambda: ak.baselines.PABConfig(cross=1.5), TypeError, r"cross is 1\.5; it must be an integer"),
    (
        lambda: ak.baselines.PABConfig(window=(800, 100)),
        ValueError,
        r"window is \(800, 100\).*low < high",
    ),
    (lambda: ak.baselines.PABConfig(window=(1, 2, 3)), ValueError, r"window is \(1, 2, 3\)"),
    (lambda: ak.baselines.PABConfig(mlp_timesteps=(7.5,)), TypeError, r"mlp_timesteps is 7\.5"),
    (lambda: ak.baselines.PABConfig(mlp_blocks=3), TypeError, r"mlp_blocks is 3; .* sequence"),
    (lambda: ak.baselines.PABConfig(mlp_count=0), ValueError, r"mlp_count is 0"),
    (
        lambda: ak.baselines.PABConfig.preset("mid"),
        ValueError,
        r"preset is 'mid'; there are 'latte-slow'",
    ),
    (lambda: ak.baselines.TGATEConfig(gate_step=0), ValueError, r"gate_step is 0; it must be >= 1"),
    (lambda: ak.baselines.TGATEConfig(interval=0), ValueError, r"interval is 0; it must be >= 1"),
    (lambda: ak.baselines.TGATEConfig(warmup=-1), ValueError, r"warmup is -1; it must be >= 0"),
    (lambda: ak.baselines.TGATEConfig(mean_over_guidance=1), TypeError, r"mean_over_guidance is 1"),
    (lambda: ak.baselines.TGATEConfig.preset("wan"), ValueError, r"preset is 'wan'"),
    (lambda: ak.baselines.DeltaDiTConfig(boundary=-1), ValueError, r"boundary is -1"),
    (lambda: ak.baselines.DeltaDiTConfig(front=(5, 5)), ValueError, r"front is 5; it must be >= 6"),
    (
        lambda: ak.baselines.DeltaDiTConfig(front=5),
        TypeError,
        r"front is 5; it must be \(first block",
    ),
    (lambda: ak.baselines.DeltaDiTConfig(back=(1,)), ValueError, r"back is \(1,\)"),
    (lambda: ak.baselines.DeltaDiTConfig(front=None), ValueError, r"front and back are None"),
    (lambda: ak.baselines.DeltaDiTConfig.preset("wan"), ValueError, r"preset is 'wan'"),
    (
        lambda: ak.baselines.TaylorSeerConfig(interval=0),
        ValueError,
        r"interval is 0; it must be >= 1",
    ),
    (lambda: ak.baselines.TaylorSeerConfig(order=-1), ValueError, r"order is -1; it must be >= 0"),
    (
        lambda: ak.baselines.TaylorSeerConfig(order=1.0),
        TypeError,
        r"order is 1\.0; it must be an integer",
    ),
    (lambda: ak.baselines.TaylorSeerConfig(warmup=0), ValueError, r"warmup is 0; it must be >= 1"),
    (lambda: ak.baselines.TaylorSeerConfig(computed_last=-1), ValueError, r"computed_last is -1"),
    (
        lambda: ak.baselines.TaylorSeerConfig(computed_steps=2),
        ValueError,
        r"computed_steps is 2; .*>= 3",
    ),
    (
        lambda: ak.baselines.TaylorSeerConfig(computed_steps=9, num_inference_steps=8),
        ValueError,
        r"computed_steps is 9, but the generation has 8 steps; it must be at least 3",
    ),
    (lambda: ak.baselines.FixedIntervalConfig(interval=0), ValueError, r"interval is 0"),
    (
        lambda: ak.baselines.FixedIntervalConfig(computed_last=-1),
        ValueError,
        r"computed_last is -1",
    ),
    (lambda: ak.baselines.MagCacheConfig(), ValueError, r"ratios is empty.*measure_ratios"),
    (lambda: ak.baselines.MagCacheConfig(ratios="wan"), TypeError, r"ratios is 'wan'; .*numbers"),
    (lambda: ak.baselines.MagCacheConfig(ratios=(1.0, math.nan)), ValueError, r"ratios is nan"),
    (
        lambda: ak.baselines.MagCacheConfig(ratios=(1.0,), threshold=-1),
        ValueError,
        r"threshold is -1",
    ),
    (
        lambda: ak.baselines.MagCacheConfig(ratios=(1.0,), max_skips=0),
        ValueError,
        r"max_skips is 0",
    ),
    (
        lambda: ak.baselines.MagCacheConfig(ratios=(1.0,), retention=1.5),
        ValueError,
        r"retention is 1\.5.*<= 1",
    ),
    (
        lambda: ak.baselines.MagCacheConfig(ratios=(1.0, 1.0), num_inference_steps=3),
        ValueError,
        r"ratios has 2 numbers, but the generation has 3 steps",
    ),
    (
        lambda: ak.baselines.FirstBlockCacheConfig(threshold=-0.1),
        ValueError,
        r"threshold is -0\.1.*>= 0",
    ),
    (
        lambda: ak.baselines.FirstBlockCacheConfig(threshold=math.inf),
        ValueError,
        r"threshold is inf",
    ),
    (
        lambda: ak.baselines.FirstBlockCacheConfig(threshold="0.1"),
        TypeError,
        r"threshold is '0\.1'",
    ),
    (lambda: ak.baselines.TeaCacheConfig(threshold=-1), ValueError, r"threshold is -1"),
    (lambda: ak.baselines.TeaCacheConfig(coefficients=()), ValueError, r"coefficients is empty"),
    (
        lambda: ak.baselines.TeaCacheConfig(watched="text"),
        ValueError,
        r"watched is 'text'.*'input'",
    ),
    (lambda: ak.baselines.TeaCacheConfig(computed_first=0), ValueError, r"computed_first is 0"),
    (lambda: ak.baselines.TeaCacheConfig(computed_last=-1), ValueError, r"computed_last is -1"),
    (lambda: ak.baselines.TeaCacheConfig.preset("x"), ValueError, r"preset is 'x'"),
    (
        lambda: ak.baselines.AdaCachePerLayerConfig(codebook="quick"),
        ValueError,
        r"codebook is 'quick'",
    ),
    (
        lambda: ak.baselines.AdaCachePerLayerConfig(codebook={0.2: 2, 0.1: 1}),
        ValueError,
        r"threshold 0\.1 follows",
    ),
    (
        lambda: ak.baselines.PABConfig(num_inference_steps=0),
        ValueError,
        r"num_inference_steps is 0",
    ),
    (lambda: ak.baselines.PABConfig(calls_per_step=0), ValueError, r"calls_per_step is 0"),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_the_error_for_a_wrong_setting_names_it_and_the_allowed_values(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "config",
    [
        ak.baselines.PABConfig.preset("latte-slow"),
        ak.baselines.TaylorSeerConfig(interval=2, order=2, computed_steps=9),
        ak.baselines.TGATEConfig(),
        ak.baselines.DeltaDiTConfig(),
        ak.baselines.FixedIntervalConfig(),
        ak.baselines.MagCacheConfig(ratios=(1.0, 0.9)),
        ak.baselines.FirstBlockCacheConfig(),
        ak.baselines.TeaCacheConfig.preset("latte-slow"),
        ak.baselines.AdaCachePerLayerConfig(codebook={0.1: 3, math.inf: 1}),
    ],
    ids=lambda config: type(config).__name__,
)
def test_settings_survive_json(config: Any) -> None:
    import json

    values = json.loads(json.dumps(config.to_dict()))
    assert type(config).__name__ == values.pop("method") + "Config"
    assert type(config)(**values) == config
