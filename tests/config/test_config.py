"""`AdaCacheConfig`: defaults, normal forms, and refused settings."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from adacache_kernels import AdaCacheConfig
from adacache_kernels.schedule.codebook import Codebook


def test_defaults_are_the_paper() -> None:
    config = AdaCacheConfig()
    assert config.locations == ("middle",)
    assert config.cache_res is None
    assert config.metric == "l1"
    assert config.moreg == (0.385, 8.0, 1.0, 10.0)
    assert config.forecast == 0
    assert not config.correct
    assert config.measure == "distance"
    assert not config.apply_moreg
    assert config.strides == ()
    assert config.batch == "any"
    assert config.guidance_rows is None
    assert config.codebook_for(30).rates == (6, 5, 4, 3, 2, 1)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        AdaCacheConfig().metric = "l2"  # type: ignore[misc]


def test_locations_and_strides_may_be_one_or_several() -> None:
    assert AdaCacheConfig(cache_loc=13).locations == (13,)
    assert AdaCacheConfig(cache_loc=["start", -1]).locations == ("start", -1)
    assert AdaCacheConfig(apply_moreg=True, moreg_strides=[1, 2]).strides == (1, 2)


def test_cap_on_reused_steps() -> None:
    config = AdaCacheConfig(codebook={0.1: 9, 0.2: 2}, max_continuous_cached_steps=3)
    assert config.codebook_for(50) == Codebook((0.1, 0.2), (4, 2))
    assert AdaCacheConfig(max_continuous_cached_steps=0).codebook_for(30).rates == (1,) * 6


def test_window_is_derived_or_given() -> None:
    assert AdaCacheConfig().window_for(30) == (4, 26)
    assert AdaCacheConfig(moreg_steps=(5, 9)).window_for(30) == (5, 9)


@pytest.mark.parametrize(
    "config",
    [
        AdaCacheConfig(),
        AdaCacheConfig(codebook={0.1: 3, 0.2: 1}, cache_loc=[1, "end"], apply_moreg=True),
        AdaCacheConfig(codebook={0.1: 3, float("inf"): 1}),
        AdaCacheConfig(batch="each", guidance_rows=2),
        AdaCacheConfig("slow", cache_res="block", metric="cosine", moreg_steps=(2, 8)),
    ],
)
def test_a_config_comes_back_from_json(config: AdaCacheConfig) -> None:
    assert AdaCacheConfig(**json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config


def test_replace_checks_again() -> None:
    with pytest.raises(ValueError, match="metric"):
        replace(AdaCacheConfig(), metric="l3")


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"codebook": "faster"}, ValueError, "'faster'.*'fast', 'slow'"),
        ({"codebook": {0.2: 2, 0.1: 1}}, ValueError, "0.1 follows 0.2"),
        ({"cache_loc": "centre"}, ValueError, "'centre'.*'middle'"),
        ({"cache_loc": []}, ValueError, "cache_loc is empty"),
        ({"cache_loc": 1.5}, TypeError, "1.5"),
        ({"cache_loc": [True]}, TypeError, "True"),
        ({"cache_res": "attn"}, ValueError, "'attn'.*'t-attn'"),
        ({"metric": "l3"}, ValueError, "'l3'.*'cosine'"),
        ({"apply_moreg": 1}, TypeError, "apply_moreg is 1"),
        ({"moreg_strides": []}, ValueError, "moreg_strides is empty"),
        ({"moreg_strides": [0]}, ValueError, "moreg_strides is 0"),
        ({"moreg_strides": 2}, TypeError, "moreg_strides is 2"),
        ({"moreg_steps": (9, 4)}, ValueError, "first step must not come after"),
        ({"moreg_steps": (1, 2, 3)}, ValueError, "moreg_steps"),
        ({"moreg_hyp": (0.385, 8, 1, 2)}, ValueError, "three numbers"),
        ({"moreg_hyp": (0.0, 8, 1)}, ValueError, "must not be 0"),
        ({"mograd_mul": -1}, ValueError, "mograd_mul is -1"),
        ({"mograd_mul": float("nan")}, ValueError, "mograd_mul is nan"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps is 0"),
        ({"num_inference_steps": 5.0}, TypeError, "num_inference_steps is 5.0"),
        ({"calls_per_step": 0}, ValueError, "calls_per_step is 0"),
        ({"batch": "all"}, ValueError, "batch is 'all'.*'any', 'mean', 'each'"),
        ({"guidance_rows": 0}, ValueError, "guidance_rows is 0"),
        ({"guidance_rows": 2.0}, TypeError, "guidance_rows is 2.0"),
        ({"max_warmup_steps": 0}, ValueError, "max_warmup_steps is 0"),
        ({"max_continuous_cached_steps": -1}, ValueError, "max_continuous_cached_steps is -1"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        AdaCacheConfig(**settings)
