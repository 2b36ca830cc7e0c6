"""Codebooks and presets."""

from __future__ import annotations

import math
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels.schedule.codebook import Codebook, parse_codebook
from adacache_kernels.schedule.presets import PUBLISHED, SETTINGS, moreg_window, preset_codebook


def test_rate_is_that_of_the_first_threshold_above_the_distance() -> None:
    codebook = parse_codebook({0.08: 6, 0.16: 5, 0.24: 4, 0.32: 3, 0.40: 2, 1.00: 1})
    assert [codebook.rate(d) for d in (0.0, 0.0799, 0.08, 0.2, 0.39, 0.4, 5.0)] == [
        6, 6, 5, 4, 2, 1, 1,
    ]  # fmt: skip


def test_a_distance_of_nan_has_rate_1() -> None:
    assert parse_codebook({0.5: 3, 1.0: 2}).rate(math.nan) == 1


def test_codebooks_of_any_length() -> None:
    assert parse_codebook([(0.1, 4)]) == Codebook((0.1,), (4,))
    assert parse_codebook(((0.1, 9), (0.2, 4), (0.3, 1))) == parse_codebook(
        {0.1: 9, 0.2: 4, 0.3: 1}
    )


def test_capped() -> None:
    assert parse_codebook({0.1: 9, 0.2: 2}).capped(3) == Codebook((0.1, 0.2), (3, 2))


@pytest.mark.parametrize(
    ("value", "error", "named"),
    [
        ({}, ValueError, "empty"),
        ({0.2: 2, 0.1: 3}, ValueError, "0.1 follows 0.2"),
        ([(0.1, 2), (0.1, 3)], ValueError, "0.1 follows 0.1"),
        ({0.1: 0}, ValueError, "rate 0"),
        ({0.1: 1.5}, ValueError, "rate 1.5"),
        ({0.1: True}, ValueError, "rate True"),
        ({math.nan: 2}, ValueError, "nan"),
        ({"low": 2}, TypeError, "'low'"),
        ([(0.1, 2, 3)], ValueError, "not a pair"),
        ([0.1, 0.2], TypeError, "0.1"),
        (0.3, TypeError, "0.3"),
        ("0.1:2", TypeError, "0.1:2"),
    ],
)
def test_wrong_codebooks(value: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        parse_codebook(value)


def test_published_presets_are_unchanged() -> None:
    assert tuple(preset_codebook("fast", 30)) == (
        (0.08, 6), (0.16, 5), (0.24, 4), (0.32, 3), (0.40, 2), (math.inf, 1),
    )  # fmt: skip
    assert tuple(preset_codebook("fast", 100)) == (
        (0.03, 12), (0.05, 10), (0.07, 8), (0.09, 6), (0.11, 4), (math.inf, 3),
    )  # fmt: skip
    assert tuple(preset_codebook("slow", 30)) == ((0.08, 3), (0.16, 2), (math.inf, 1))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 29, 31, 50, 60, 99, 101, 250, 1000])
def test_derived_presets_are_codebooks(name: str, num_steps: int) -> None:
    derived = preset_codebook(name, num_steps)
    assert parse_codebook(list(derived)) == derived
    assert list(derived.rates) == sorted(derived.rates, reverse=True)


def test_presets_between_the_published_ones_lie_between_them() -> None:
    low, middle, high = (preset_codebook("fast", n) for n in (30, 65, 100))
    assert middle.thresholds[0] == pytest.approx((0.08 + 0.03) / 2)
    assert middle.rates == (9, 7, 6, 4, 3, 2)
    assert all(a <= b <= c for a, b, c in zip(low.rates, middle.rates, high.rates, strict=True))


def test_presets_beyond_scale_with_the_step() -> None:
    assert preset_codebook("slow", 60) == Codebook((0.04, 0.08, math.inf), (6, 4, 2))
    assert preset_codebook("slow", 15) == Codebook((0.16, 0.32, math.inf), (1, 1, 1))


def test_moreg_window() -> None:
    assert moreg_window(30) == (4, 26)
    assert moreg_window(100) == (10, 90)
    assert moreg_window(65) == (7, 58)
    assert moreg_window(200) == (20, 180)
    assert moreg_window(44) == (5, 39)
    assert moreg_window(11) == (1, 10)
    assert moreg_window(1) == (1, 1)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_preset_has_settings_that_patch_takes(name: str) -> None:
    config = ak.AdaCacheConfig(**SETTINGS[name])
    assert list(config.codebook_for(50).rates)[-1] == 1
    forecasts = name == "forecast"
    assert (config.forecast, config.correct) == (int(forecasts), forecasts)
    assert config.compares_forecasts is forecasts
