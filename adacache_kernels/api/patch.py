"""`patch`, `unpatch` and what else the user calls. Instances are patched, never classes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from .. import _native
from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..config.calibration_file import Calibration
from ..engine.clocks.expert_clock import clocks_of_experts
from ..engine.merge_summaries import merge_experts
from ..engine.summary import Summary
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models.other_libraries.inspection import inspect
from .find_adapter import find_adapter
from .installation import Installation, engine_of, installation_of
from .make_clock import make_clock
from .make_engine import _check_arena, _make
from .resolve_config import resolve_config
from .target import _require, _transformers, installed_engines

T = TypeVar("T")


def patch(
    model: T,
    config: AdaCacheConfig | Calibration | BaselineConfig | str | Path | None = None,
    *,
    arena: CacheArena | None = None,
    blocks: str | Sequence[str] = (),
    **overrides: Any,
) -> T:
    """Patch a diffusers pipeline, or a transformer, so that it reuses what changes little.

        x_out = x_in + R        R = residual of the last computed step, on a reused step

    Args:
        model: a pipeline with `.transformer` and `.scheduler`, which tell the number of steps and
            where a step ends; with a `.transformer_2` as Wan 2.2 has it, both are patched; or the
            transformer itself, see `num_inference_steps`.
        config: an `AdaCacheConfig`, a preset's name, or None for the defaults ("fast"). "fast" and
            "slow" are the paper's; "forecast" forecasts residuals and goes by the forecast's error.
            A `Calibration`, or the path of its JSON file, see `calibrate`.
            Or the config of another method to compare with, such as a `PABConfig`.
        arena: memory that several patched models share, within its budget; by default each has its
            own, see `max_cache_bytes`.
        blocks: names of the model's block lists, where the model is not one that is known and they
            cannot be told by themselves. The first forward of such a model shows how its blocks are
            connected; nothing is stored in it, so that the third step is computed as well.
        overrides: fields of the config to change.

    Returns:
        `model`, patched in place.

    Raises:
        FileNotFoundError: no such calibration.
        ImportError: the package's compiled part is missing.
        TypeError: neither a pipeline nor a module; an unknown setting.
        ValueError: already patched, cached or split over ranks by another library, compiled as a
            whole, a class that must not be cached, blocks that cannot be told, a setting that does
            not fit the model, a calibration of something else or a file that holds none.

    The first forward raises `CacheBudgetError` where the cache does not fit its budget, and
    `ValueError` where a model that is not known turns out to be connected in an unclear way, or
    where another cache has been put on it since. A forward raises `RuntimeError` while another one
    of the same model is running.
    """
    _native.module()
    settings = resolve_config(config, overrides)
    _check_arena(arena, settings)
    transformers = _transformers(model)
    for transformer in transformers:
        inspection = inspect(transformer)
        inspection.check_not_compiled()
        if engine_of(transformer) is not None:
            raise ValueError(
                f"this {type(transformer).__name__} is patched already; unpatch it first to change "
                "its settings"
            )
        inspection.check_no_conflict()
    found = [find_adapter(transformer, blocks) for transformer in transformers]
    clock = make_clock(model, settings)
    source = (
        ArenaProvider(settings.max_cache_bytes, arena)
        if isinstance(settings, AdaCacheConfig)
        else None
    )
    try:
        engines = [
            _make(transformer, what, settings, own, source)
            for transformer, what, own in zip(
                transformers, found, clocks_of_experts(clock, len(transformers)), strict=True
            )
        ]
    except BaseException:
        clock.detach()
        raise
    for transformer, engine in zip(transformers, engines, strict=True):
        Installation(transformer, engine)
    return model


def unpatch(model: T) -> T:
    """Set the model's own methods back and give all memory back.

    Raises:
        ValueError: the model is not patched.
        RuntimeError: a call of it is running.
    """
    transformers = _transformers(model)
    engines = [_require(transformer) for transformer in transformers]
    installations = [installation_of(transformer) for transformer in transformers]
    with ExitStack() as idle:
        for installation in installations:
            idle.enter_context(installation.alone("was unpatched"))
        for installation, engine in zip(installations, engines, strict=True):
            engine.clock.detach()
            engine.reset()
            installation.remove()
    return model


def is_patched(model: object) -> bool:
    """Whether the pipeline's transformers, or the transformer, are patched."""
    return all(engine_of(transformer) is not None for transformer in _transformers(model))


def reset(model: object) -> None:
    """Forget what is stored: the next call is the first step of a new generation.

    A pipeline does so by itself. A bare model needs it when a run was broken off.

    Raises:
        ValueError: the model is not patched.
        RuntimeError: a call of it is running.
    """
    for transformer in _transformers(model):
        engine = _require(transformer)
        with installation_of(transformer).alone("was reset"):
            engine.reset()


def summary(model: object) -> Summary:
    """What the last generation computed and reused; of two experts, what they did together.

    Raises:
        ValueError: the model is not patched.
    """
    engines = installed_engines(model)
    for transformer in _transformers(model):
        installation_of(transformer).warn_if_bypassed()
    return merge_experts([engine.summary() for engine in engines])
