"""Turn the arguments of `patch` into a config object."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..config.calibration_file import Calibration
from ..schedule.files import is_file, may_be_path
from ..schedule.presets import SETTINGS

ConfigArgument = AdaCacheConfig | Calibration | BaselineConfig | str | Path | None


def resolve_config(
    config: ConfigArgument, overrides: dict[str, Any]
) -> AdaCacheConfig | BaselineConfig:
    """Return the config that `config` names, with the fields in `overrides` changed.

    Args:
        config: a config, a calibration or the path of its file, the name of a preset, or None for
            the defaults.
        overrides: new values of fields, by name.

    Raises:
        FileNotFoundError: the calibration file does not exist.
        TypeError: `config` has a wrong type, or a setting is unknown.
        ValueError: the preset is unknown, the file is no calibration, or a setting is wrong.
    """
    named = _named(config)
    known = [f.name for f in fields(named) if f.init]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"unknown setting {', '.join(unknown)}; there are {', '.join(known)}")
    return replace(named, **overrides)


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
        f"config is {config!r}; it may be an AdaCacheConfig, the config of a baseline, the name of "
        "a preset, a Calibration or the path of its file, or None"
    )


def _is_file(name: str) -> bool:
    return (name.endswith(".json") and may_be_path(name)) or is_file(name)
