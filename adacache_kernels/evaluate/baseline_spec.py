"""The names of the baselines, `adacache_kernels.baselines`, on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..baselines import (
    AdaCachePerLayerConfig,
    BaselineConfig,
    DeltaDiTConfig,
    FirstBlockCacheConfig,
    FixedIntervalConfig,
    MagCacheConfig,
    PABConfig,
    TaylorSeerConfig,
    TeaCacheConfig,
    TGATEConfig,
)
from .option_values import check_known, numbers_from

BASELINES: dict[str, type[BaselineConfig]] = {
    "pab": PABConfig,
    "taylorseer": TaylorSeerConfig,
    "t-gate": TGATEConfig,
    "delta-dit": DeltaDiTConfig,
    "per-layer": AdaCachePerLayerConfig,
    "interval": FixedIntervalConfig,
    "first-block": FirstBlockCacheConfig,
    "teacache": TeaCacheConfig,
    "mag-cache": MagCacheConfig,
}


def baseline_config(
    text: str, name: str, presets: Sequence[str], options: Mapping[str, Any]
) -> BaselineConfig:
    """Return the config of `name:PRESET:key=value`, in which the preset is optional.

    Args:
        text: the whole method, for the messages.
        name: of a baseline in `BASELINES`.
        presets: names of presets; at most one.
        options: settings.

    Raises:
        ValueError: the preset or an option is unknown, or a value is wrong.
    """
    config = BASELINES[name]
    check_known(text, options, [field.name for field in fields(config)])
    options = {key: numbers_from(text, value) for key, value in options.items()}
    preset = getattr(config, "preset", None)
    if len(presets) > 1 or (presets and preset is None):
        raise ValueError(f"method {text!r}: {presets[-1]!r} is no option; write key=value")
    try:
        return preset(presets[0], **options) if presets and preset else config(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"method {text!r}: {error}") from error
