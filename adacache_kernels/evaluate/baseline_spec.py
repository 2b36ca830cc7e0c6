"""The words that name the methods of `adacache_kernels.baselines` on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
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

OTHERS: dict[str, type[BaselineConfig]] = {
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


def other_method(
    text: str, name: str, presets: Sequence[str], options: Mapping[str, Any]
) -> BaselineConfig:
    """The config that `name:PRESET:key=value` stands for; the preset may be left out.

    Raises:
        ValueError: no such preset or option, or a value that is none; quotes `text`.
    """
    config = OTHERS[name]
    known = [field.name for field in fields(config)]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"method {text!r}: no option {unknown[0]}; there are {', '.join(known)}")
    options = {key: numbers_from(text, value) for key, value in options.items()}
    preset = getattr(config, "preset", None)
    if len(presets) > 1 or (presets and preset is None):
        raise ValueError(f"method {text!r}: {presets[-1]!r} is no option; write key=value")
    try:
        return preset(presets[0], **options) if presets and preset else config(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"method {text!r}: {error}") from error


def numbers_from(text: str, value: Any) -> Any:
    """The numbers in a JSON file where one is named; else the value itself."""
    if not (isinstance(value, str) and value.endswith(".json")):
        return value
    try:
        return tuple(json.loads(Path(value).read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"method {text!r}: {value} holds no list of numbers ({error})") from error
