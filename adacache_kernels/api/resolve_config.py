"""From what `patch` was given to its settings."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..config.calibration_file import Calibration
from ..schedule.presets import SETTINGS

Given = AdaCacheConfig | Calibration | BaselineConfig | str | Path | None


def settings_of(config: Given, overrides: dict[str, Any]) -> AdaCacheConfig | BaselineConfig:
    """The config that was named, with `overrides`.

    Raises:
        FileNotFoundError: no such file.
        TypeError: no config, or an unknown setting.
        ValueError: no such preset, or a file that holds no calibration.
    """
    found = _named(config)
    known = [f.name for f in fields(found) if f.init]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"unknown setting {', '.join(unknown)}; there are {', '.join(known)}")
    return replace(found, **overrides)


def _named(config: object) -> AdaCacheConfig | BaselineConfig:
    if config is None:
        return AdaCacheConfig()
    if isinstance(config, AdaCacheConfig | BaselineConfig):
        return config
    if isinstance(config, Calibration):
        return config.config()
    if isinstance(config, str) and config in SETTINGS:
        return AdaCacheConfig(**SETTINGS[config])
    if isinstance(config, Path) or (isinstance(config, str) and _is_file(config)):
        return Calibration.load(config).config()
    if isinstance(config, str):
        presets = ", ".join(map(repr, SETTINGS))
        raise ValueError(
            f"config is {config!r}; the presets are {presets}, and a calibration is a .json file"
        )
    raise TypeError(
        f"config is {config!r}; it may be an AdaCacheConfig, the config of another method, a "
        "preset's name, a Calibration or the path of its file, or None"
    )


def _is_file(name: str) -> bool:
    return name.endswith(".json") or Path(name).is_file()
