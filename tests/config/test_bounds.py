"""Upper bounds of integer settings: a number that is too large is refused at once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels import baselines
from adacache_kernels.config.validation import check_finite, check_int
from tests.support.tiny_models.common_models import TINY

HUGE = 10**30
CONFIGS = [
    getattr(baselines, name)
    for name in dir(baselines)
    if name.endswith("Config") and name != "BaselineConfig"
]
NEEDED: dict[str, dict[str, Any]] = {
    "MagCacheConfig": {"ratios": (1.0, 1.0)},
    "TeaCacheConfig": {"coefficients": (1.0,)},
}


def integers(config: type) -> list[str]:
    """Return the names of the fields that are an integer, or None."""
    return [each.name for each in fields(config) if each.type in ("int", "int | None")]  # type: ignore[arg-type]


CASES = [(config, name) for config in [*CONFIGS, ak.AdaCacheConfig] for name in integers(config)]


def test_all_configs_are_tested() -> None:
    assert len(CONFIGS) >= 9 and len(CASES) > 30
    assert (baselines.TaylorSeerConfig, "num_inference_steps") in CASES


@pytest.mark.parametrize(("config", "name"), CASES)
@pytest.mark.parametrize("value", [HUGE, 100_001, 10**5000], ids=["huge", "next", "digits"])
def test_an_integer_that_is_too_large(config: Any, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} is .*; it") as error:
        config(**NEEDED.get(config.__name__, {}), **{name: value})
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("config", "name"), CASES)
def test_the_largest_integer_ends(config: Any, name: str) -> None:
    if name == "forecast":
        return
    # A setting that needs fewer steps than this refuses it.
    try:
        config(**NEEDED.get(config.__name__, {}), **{name: 100_000})
    except ValueError as error:
        assert "100000" in str(error)


@pytest.mark.parametrize(
    "settings",
    ids=lambda settings: next(iter(settings)),
    argvalues=[
        {"schedule": [1, HUGE]},
        {"moreg_steps": (1, HUGE)},
        {"moreg_strides": (HUGE,)},
        {"codebook": {0.1: HUGE}},
        {"codebook": {10**400: 2}},
        {"codebook": [[10**5000, 2]]},
        {"max_cache_bytes": HUGE},
        {"mograd_mul": 10**400},
        {"moreg_hyp": (10**400, 1, 1)},
        {"adaptivity": HUGE},
    ],
)
def test_other_settings_with_a_number_that_is_too_large(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)).removesuffix("s")) as error:
        ak.AdaCacheConfig(**settings)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("block", [HUGE, -HUGE, 99])
def test_a_block_that_the_model_does_not_have(block: int) -> None:
    with pytest.raises(ValueError, match="cache_loc"):
        ak.patch(TINY["wan"].build(), cache_loc=block)


def test_bounds_are_inclusive() -> None:
    check_int("it", 5, at_least=5, at_most=5)
    check_int("it", None, at_least=5, optional=True)
    for value in (4, 6):
        with pytest.raises(ValueError, match=f"it is {value}; it must be [<>]= 5"):
            check_int("it", value, at_least=5, at_most=5)
    check_finite("it", 1.0, at_least=1.0, at_most=1.0)
    check_finite("it", 10**300, at_least=0.0)
    for number in (float("nan"), float("inf"), 10**400, -(10**400)):
        with pytest.raises(ValueError, match=r"it is .*; it must be finite and >= -5"):
            check_finite("it", number, at_least=-5)
