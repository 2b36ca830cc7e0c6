"""`patch`, `unpatch` and what else the user calls. Instances are patched, never classes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from .. import _native
from ..baselines import BaselineConfig
from ..baselines.engine import BaselineEngine
from ..config.adacache_config import AdaCacheConfig
from ..config.calibration_file import Calibration
from ..engine.clocks.clock import Call, CallClock, SchedulerClock, StepClock, clocks
from ..engine.clocks.timestep_clock import TimestepClock
from ..engine.engine import Engine
from ..engine.per_branch_engine import PerBranchEngine
from ..engine.per_video_engine import PerVideoEngine, make_engine
from ..engine.probing_engine import AnyEngine, ProbingEngine
from ..engine.summary import Summary, joined
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter, adapter_for, chosen
from ..models.other_libraries.conflicting_patches import check_neighbours
from ..models.other_libraries.torch_compile import check_not_compiled
from .installation import Installation, engine_of, installation_of
from .resolve_config import settings_of

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
    settings = settings_of(config, overrides)
    _check_arena(arena, settings)
    transformers = _transformers(model)
    for transformer in transformers:
        check_not_compiled(transformer)
        if engine_of(transformer) is not None:
            raise ValueError(
                f"this {type(transformer).__name__} is patched already; unpatch it first to change "
                "its settings"
            )
        check_neighbours(transformer)
    found = [_look_at(transformer, blocks) for transformer in transformers]
    clock = _clock(model, settings)
    source = (
        ArenaProvider(settings.max_cache_bytes, arena)
        if isinstance(settings, AdaCacheConfig)
        else None
    )
    try:
        engines = [
            _make(transformer, what, settings, own, source)
            for transformer, what, own in zip(
                transformers, found, clocks(clock, len(transformers)), strict=True
            )
        ]
    except BaseException:
        clock.detach()
        raise
    for transformer, engine in zip(transformers, engines, strict=True):
        Installation(transformer, engine)
    return model


def _look_at(transformer: nn.Module, blocks: str | Sequence[str]) -> Adapter | list[str]:
    """What is known of a transformer, or the lists to probe where nothing is."""
    names = (blocks,) if isinstance(blocks, str) else blocks
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"blocks is {blocks!r}; it may be the name of a block list, or several")
    adapter = adapter_for(transformer)
    return adapter if adapter is not None and not names else chosen(transformer, list(names))


def _make(
    transformer: nn.Module,
    found: Adapter | list[str],
    settings: AdaCacheConfig | BaselineConfig,
    clock: StepClock,
    source: ArenaProvider | None,
) -> AnyEngine:
    if isinstance(settings, BaselineConfig):
        return _other_method(transformer, found, settings, clock)
    assert source is not None
    if isinstance(found, Adapter):
        return _known(transformer, found, settings, clock, source)

    def begin(adapter: Adapter, call: Call) -> None:
        engine = _known(transformer, adapter, settings, clock, source)
        engine.join(call)
        installation_of(transformer).use(engine)

    def give_up() -> None:
        clock.detach()
        installation_of(transformer).remove()

    return ProbingEngine(transformer, found, settings, clock, source, begin, give_up)


def _other_method(
    transformer: nn.Module, found: Adapter | list[str], settings: BaselineConfig, clock: StepClock
) -> BaselineEngine:
    if not isinstance(found, Adapter):
        raise ValueError(
            f"{type(settings).__name__}: {type(transformer).__name__} is not a class that is "
            "known; only AdaCacheConfig can find out how a model is connected"
        )
    return BaselineEngine(transformer, found, settings, clock)


def _known(
    transformer: nn.Module,
    adapter: Adapter,
    settings: AdaCacheConfig,
    clock: StepClock,
    source: ArenaProvider,
) -> Engine | PerVideoEngine | PerBranchEngine:
    def make(clock: StepClock) -> Engine | PerVideoEngine:
        return make_engine(transformer, adapter, settings, clock, source)

    if settings.decide_for == "step":
        return make(clock)
    return PerBranchEngine(transformer, settings, clock, make)


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
        installation_of(transformer).say_if_set_aside()
    return joined([engine.summary() for engine in engines])


def _check_arena(arena: object, settings: AdaCacheConfig | BaselineConfig) -> None:
    if arena is None:
        return
    if isinstance(settings, BaselineConfig):
        raise ValueError(
            f"arena: {type(settings).__name__} keeps plain tensors and has no arena; leave it out"
        )
    if not isinstance(arena, CacheArena):
        raise TypeError(f"arena is {arena!r}; it must be a CacheArena")
    if settings.max_cache_bytes is not None:
        raise ValueError(
            f"max_cache_bytes={settings.max_cache_bytes!r}: an arena has a budget of its own; give "
            "one of the two"
        )


def _transformers(model: object) -> list[nn.Module]:
    """The transformer, or those of a pipeline in the order of its steps."""
    if isinstance(model, nn.Module):
        return [model]
    named = [getattr(model, name, None) for name in ("transformer", "transformer_2")]
    found = [transformer for transformer in named if transformer is not None]
    if not found or not all(isinstance(transformer, nn.Module) for transformer in found):
        raise TypeError(
            f"{type(model).__name__} is neither a torch module nor a pipeline with a .transformer"
        )
    return found


def _check_open_ended(settings: AdaCacheConfig) -> None:
    """What cannot be done on a bare model without its number of steps."""
    needing = {
        "schedule": settings.schedule is not None,
        "profile": settings.profile is not None,
        "forecast_time": settings.forecast_time != "step",
        'decision="graph"': settings.decision == "graph",
    }
    named = [name for name, needs in needing.items() if needs]
    if named:
        raise ValueError(
            f"{named[0]} needs the number of steps, which a bare model cannot tell: give "
            "num_inference_steps=, or patch the pipeline"
        )


def _clock(model: object, settings: AdaCacheConfig | BaselineConfig) -> StepClock:
    if isinstance(model, nn.Module):
        if settings.num_inference_steps is None:
            if isinstance(settings, BaselineConfig):
                raise ValueError(
                    f"{type(settings).__name__} needs the number of steps, which a bare model "
                    "cannot tell: give num_inference_steps=, or patch the pipeline"
                )
            _check_open_ended(settings)
            return TimestepClock(settings.calls_per_step or 1)
        return CallClock(settings.num_inference_steps, settings.calls_per_step or 1)
    if settings.calls_per_step is not None:
        raise ValueError(
            f"calls_per_step={settings.calls_per_step}: a pipeline's scheduler tells where a step "
            "ends; leave it out"
        )
    for name in ("set_timesteps", "step"):
        if not callable(getattr(getattr(model, "scheduler", None), name, None)):
            raise TypeError(
                f"{type(model).__name__} has no .scheduler with .{name}(); patch its transformer "
                "with num_inference_steps="
            )
    return SchedulerClock(model)


def installed_engines(model: object) -> list[AnyEngine]:
    """The engine of each transformer.

    Raises:
        ValueError: one is not patched.
    """
    return [_require(transformer) for transformer in _transformers(model)]


def attached_engine(model: object) -> Engine:
    """The engine of a patched model, or of a pipeline with one transformer.

    Raises:
        ValueError: the model is not patched, or with another method, or there are several models
            or engines.
    """
    transformers = _transformers(model)
    if len(transformers) > 1:
        raise ValueError(f"{type(model).__name__} has {len(transformers)} transformers; name one")
    engine = _require(transformers[0])
    if isinstance(engine, BaselineEngine):
        raise ValueError(f"the model is patched with {type(engine.config).__name__}")
    if isinstance(engine, PerVideoEngine):
        raise ValueError('batch="each": each video has an engine; patch with another batch=')
    if isinstance(engine, PerBranchEngine):
        raise ValueError('decide_for="branch": each branch has an engine; patch without it')
    if not isinstance(engine, Engine):
        raise ValueError(
            f"{type(transformers[0]).__name__} is not a class that is known; run it once, so that "
            "its blocks are found"
        )
    return engine


def _require(transformer: nn.Module) -> AnyEngine:
    engine = engine_of(transformer)
    if engine is None:
        raise ValueError(f"this {type(transformer).__name__} is not patched; call patch() first")
    return engine
