"""Patch pipelines and models, and ask what they did. Instances are patched, never classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from .. import _native
from ..baselines import BaselineConfig
from ..config.adacache_config import AdaCacheConfig
from ..config.calibration_file import Calibration
from ..engine.clocks.step_clock import StepClock
from ..engine.reports.merge_summaries import merge_experts
from ..engine.reports.summary import Summary
from ..engine.router import Router
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter, GivenFrames, check_frames
from ..models.other_libraries.inspection import inspect
from ..models.other_libraries.rank_groups import Role, check_given
from .choose_adapter import choose_adapter
from .installation import Installation, installation_of, router_of
from .make_clock import make_clock
from .make_engine import check_arena, make_router
from .resolve_config import resolve_config
from .target import installed_routers, transformers_of

T = TypeVar("T")


def patch(
    model: T,
    config: AdaCacheConfig | Calibration | BaselineConfig | str | Path | None = None,
    *,
    arena: CacheArena | None = None,
    blocks: str | Sequence[str] = (),
    frames: GivenFrames | None = None,
    process_group: Any = None,
    **overrides: Any,
) -> T:
    """Patch a diffusers pipeline or a transformer, so that it reuses residuals that change little.

        x_out = x_in + R        R = residual of the last computed step, on a reused step

    Args:
        model: a pipeline with `.transformer` and `.scheduler`; the scheduler reports the number of
            steps and the end of each step. If the pipeline has a `.transformer_2`, as Wan 2.2 has,
            both are patched. Or the transformer itself, see `num_inference_steps`. Or several
            transformers that share a generation: a list of them, or an object with
            `.high_noise_model` and `.low_noise_model`.
        config: an `AdaCacheConfig`, the name of a preset, or None for the defaults ("fast"). "fast"
            and "slow" are the paper's presets; "forecast" extrapolates residuals, and the forecast
            error decides. Or a `Calibration`, or the path of its JSON file, see `calibrate`. Or
            the config of a baseline, such as `baselines.PABConfig`.
        arena: memory that several patched models share, within its budget. By default each model
            has its own arena, see `max_cache_bytes`.
        blocks: names of the model's block lists, if its class is not known and the lists cannot be
            detected. The first forward of such a model shows how its blocks are connected. It
            stores nothing, so the third step is computed as well.
        frames: the frames of tokens in a video, if the class of the model is not known and its
            inputs do not show them. A whole number, or a function of the arguments of the model's
            forward by name. Motion regularization needs them.
        process_group: the ranks of `torch.distributed` that hold parts of the same video, if no
            known library has set them up. A process group, or a mapping from "shards", "replicas"
            or "videos" to process groups, see docs/multi_gpu.md.
        overrides: fields of the config to change.

    Returns:
        `model`, patched in place.

    Raises:
        FileNotFoundError: the calibration file does not exist.
        ImportError: the package's compiled part is missing.
        TypeError: `model` is neither a pipeline nor a module, or a setting is unknown.
        ValueError: the model is patched already; another library caches it; it is compiled as a
            whole; its class must not be cached; its blocks cannot be detected; a setting does not
            fit the model; a calibration belongs to another model, or its file is not a calibration.

    The first forward raises `CacheBudgetError` if the cache does not fit its budget. It raises
    `ValueError` if the connections of an unknown model are unclear, or if another library has begun
    to cache the model, or if the model is not what its class suggests. A forward that runs inside
    of another one of the same model raises `RuntimeError`; forwards of several threads wait.
    """
    _native.module()
    settings = resolve_config(config, overrides)
    check_arena(arena, settings)
    if frames is not None:
        check_frames(frames)
    groups = check_given(process_group)
    transformers = transformers_of(model)
    for transformer in transformers:
        inspection = inspect(transformer)
        inspection.check_not_compiled()
        if router_of(transformer) is not None:
            raise ValueError(
                f"this {type(transformer).__name__} is patched already; unpatch it first to change "
                "its settings"
            )
        inspection.check_no_conflict()
    found = [choose_adapter(transformer, blocks) for transformer in transformers]
    clock = make_clock(model, settings)
    routers = _make_routers(transformers, found, settings, clock, arena, frames, groups)
    for transformer, router, of_model in zip(transformers, routers, found, strict=True):
        Installation(transformer, router, of_model)
    return model


def unpatch(model: T) -> T:
    """Restore the model's own methods and release all memory.

    Raises:
        RuntimeError: a call of the model is running further up in this thread.
        TypeError: `model` is neither a pipeline nor a module.
        ValueError: the model is not patched.
    """
    routers = installed_routers(model)
    installations = [installation_of(transformer) for transformer in transformers_of(model)]
    with ExitStack() as idle:
        for installation in installations:
            idle.enter_context(installation.alone("was unpatched"))
        for installation, router in zip(installations, routers, strict=True):
            router.clock.detach()
            router.reset()
            installation.remove()
    return model


def is_patched(model: object) -> bool:
    """Return whether the transformer, or every transformer of the pipeline, is patched.

    Raises:
        TypeError: `model` is neither a pipeline nor a module.
    """
    return all(router_of(transformer) is not None for transformer in transformers_of(model))


def reset(model: object) -> None:
    """Forget all stored residuals: the next call is the first step of a new generation.

    A pipeline needs no reset. A bare model on a device needs one after a generation that did not
    run to its end, if its timesteps are no views of a schedule and the next prompts are the same
    tensors.

    Raises:
        RuntimeError: a call of the model is running further up in this thread.
        TypeError: `model` is neither a pipeline nor a module.
        ValueError: the model is not patched.
    """
    for transformer, router in zip(transformers_of(model), installed_routers(model), strict=True):
        with installation_of(transformer).alone("was reset"):
            router.reset()


def summary(model: object) -> Summary:
    """Return what the last generation computed and reused, over all transformers of a pipeline.

    Raises:
        TypeError: `model` is neither a pipeline nor a module.
        ValueError: the model is not patched.
    """
    routers = installed_routers(model)
    for transformer in transformers_of(model):
        installation_of(transformer).warn_if_bypassed()
    return merge_experts([router.summary() for router in routers])


def _make_routers(
    transformers: Sequence[nn.Module],
    found: Sequence[Adapter | list[str]],
    settings: AdaCacheConfig | BaselineConfig,
    clock: StepClock,
    arena: CacheArena | None,
    frames: GivenFrames | None,
    groups: Mapping[Role, Any],
) -> list[Router]:
    """Return a router for each transformer. They share the generations, the clock and the arena."""
    provider = None
    if isinstance(settings, AdaCacheConfig):
        provider = ArenaProvider(settings.max_cache_bytes, arena)
    try:
        return [
            make_router(transformer, one, settings, clock, provider, frames, groups)
            for transformer, one in zip(transformers, found, strict=True)
        ]
    except BaseException:
        clock.detach()
        raise
