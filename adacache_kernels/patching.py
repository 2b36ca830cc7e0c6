"""`patch`, `unpatch` and what else the user calls. Instances are patched, never classes."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import nn

from . import _native
from .arena import CacheArena
from .arena_source import ArenaSource
from .clock import CallClock, Clock, SchedulerClock, clocks
from .compiled import check_not_compiled, refuse_to_be_traced, uncompiled
from .config import AdaCacheConfig
from .context import cache_context
from .engine import Engine
from .history import Summary, joined
from .methods import MethodConfig
from .methods.engine import MethodEngine
from .models import Adapter, adapter_for
from .presets import SETTINGS
from .types import AdaCacheWarning

INSTALLATION = "_adacache_installation"
AnyEngine = Engine | MethodEngine
T = TypeVar("T")


def patch(
    model: T,
    config: AdaCacheConfig | MethodConfig | str | None = None,
    *,
    arena: CacheArena | None = None,
    **overrides: Any,
) -> T:
    """Patch a diffusers pipeline, or a transformer, so that it reuses what changes little.

        x_out = x_in + R        R = residual of the last computed step, on a reused step

    Args:
        model: a pipeline with `.transformer` and `.scheduler`, which tell the number of steps and
            where a step ends; with a `.transformer_2` as Wan 2.2 has it, both are patched; or the
            transformer itself, which needs `num_inference_steps`.
        config: an `AdaCacheConfig`, a preset's name, or None for the defaults ("fast"). "fast" and
            "slow" are the paper's; "forecast" forecasts residuals and goes by the forecast's error.
            Or the config of another method to compare with, such as a `PABConfig`.
        arena: memory that several patched models share, within its budget; by default each has its
            own, see `max_cache_bytes`.
        overrides: fields of the config to change.

    Returns:
        `model`, patched in place.

    Raises:
        ImportError: the package's compiled part is missing.
        TypeError: neither a pipeline nor a module; an unknown setting.
        ValueError: already patched, compiled as a whole, an unsupported class, a setting that does
            not fit the model.

    The first forward raises `CacheBudgetError` where the cache does not fit its budget.
    """
    _native.module()
    settings = _settings(config, overrides)
    _check_arena(arena, settings)
    transformers = _transformers(model)
    for transformer in transformers:
        check_not_compiled(transformer)
        if _engine(transformer) is not None:
            raise ValueError(
                f"this {type(transformer).__name__} is patched already; unpatch it first to change "
                "its settings"
            )
    adapters = [adapter_for(transformer) for transformer in transformers]
    clock = _clock(model, settings)
    source = (
        ArenaSource(settings.max_cache_bytes, arena)
        if isinstance(settings, AdaCacheConfig)
        else None
    )
    try:
        engines = [
            _make_engine(transformer, adapter, settings, own, source)
            for transformer, adapter, own in zip(
                transformers, adapters, clocks(clock, len(transformers)), strict=True
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
    """
    transformers = _transformers(model)
    engines = [_require(transformer) for transformer in transformers]
    for transformer, engine in zip(transformers, engines, strict=True):
        engine.clock.detach()
        engine.reset()
        vars(uncompiled(transformer))[INSTALLATION].remove()
    return model


def is_patched(model: object) -> bool:
    """Whether the pipeline's transformers, or the transformer, are patched."""
    return all(_engine(transformer) is not None for transformer in _transformers(model))


def reset(model: object) -> None:
    """Forget what is stored: the next call is the first step of a new generation.

    A pipeline does so by itself. A bare model needs it when a run was broken off.

    Raises:
        ValueError: the model is not patched.
    """
    for engine in installed_engines(model):
        engine.reset()


def summary(model: object) -> Summary:
    """What the last generation computed and reused; of two experts, what they did together.

    Raises:
        ValueError: the model is not patched.
    """
    return joined([engine.summary() for engine in installed_engines(model)])


class PatchedForward:
    """The forward of a patched model, set on the instance."""

    def __init__(self, model: nn.Module, engine: AnyEngine) -> None:
        self._model = model
        self._engine: AnyEngine | None = engine
        self._original = model.forward
        self._refuse = refuse_to_be_traced()
        functools.update_wrapper(self, self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._engine is None:
            return self._original(*args, **kwargs)
        if torch.compiler.is_compiling():
            self._refuse()
        return self._engine.forward(self._original, args, kwargs)

    def retire(self) -> None:
        """Call the original from now on, wherever this object is still held."""
        self._engine = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The copy of a patched model is unpatched, and must not run the original's blocks.
        copy = memo.get(id(self._model), self._model)
        return MethodType(type(copy).forward, copy)


class NamedContext:
    """A model's own `cache_context`, which names the branch for this package, too."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._original: Callable[..., Any] = model.cache_context  # type: ignore[assignment]
        functools.update_wrapper(self, self._original)

    @contextmanager
    def _entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        with self._original(name, *args, **kwargs) as value, cache_context(name):
            yield value

    def __call__(
        self, name: str, *args: Any, **kwargs: Any
    ) -> contextlib.AbstractContextManager[Any]:
        return self._entered(name, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = memo.get(id(self._model), self._model)
        return MethodType(type(copy).cache_context, copy)


def _make_engine(
    transformer: nn.Module,
    adapter: Adapter,
    settings: AdaCacheConfig | MethodConfig,
    clock: Clock,
    source: ArenaSource | None,
) -> AnyEngine:
    if isinstance(settings, MethodConfig):
        return MethodEngine(transformer, adapter, settings, clock)
    assert source is not None
    return Engine(transformer, adapter, settings, clock, source)


def _settings(
    config: AdaCacheConfig | MethodConfig | str | None, overrides: dict[str, Any]
) -> AdaCacheConfig | MethodConfig:
    if config is None:
        config = AdaCacheConfig()
    elif isinstance(config, str):
        if config not in SETTINGS:
            presets = ", ".join(map(repr, SETTINGS))
            raise ValueError(f"config is {config!r}; the presets are {presets}")
        config = AdaCacheConfig(**SETTINGS[config])
    elif not isinstance(config, AdaCacheConfig | MethodConfig):
        raise TypeError(
            f"config is {config!r}; it may be an AdaCacheConfig, the config of another method, a "
            "preset's name or None"
        )
    known = [f.name for f in fields(config) if f.init]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"unknown setting {', '.join(unknown)}; there are {', '.join(known)}")
    return replace(config, **overrides)


def _check_arena(arena: object, settings: AdaCacheConfig | MethodConfig) -> None:
    if arena is None:
        return
    if isinstance(settings, MethodConfig):
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


def _clock(model: object, settings: AdaCacheConfig | MethodConfig) -> Clock:
    if isinstance(model, nn.Module):
        if settings.num_inference_steps is None:
            raise ValueError(
                "a bare model cannot tell its number of steps: give num_inference_steps=, or patch "
                "the pipeline"
            )
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


class Installation:
    """What `patch` set on a transformer, and how it is taken off again."""

    def __init__(self, transformer: nn.Module, engine: AnyEngine) -> None:
        attributes = vars(transformer)
        self.engine = engine
        self._attributes = attributes
        self._forward = PatchedForward(transformer, engine)
        self._set: dict[str, Any] = {"forward": self._forward}
        if callable(getattr(transformer, "cache_context", None)):
            self._set["cache_context"] = NamedContext(transformer)
        self._previous = {name: attributes[name] for name in self._set if name in attributes}
        attributes.update(self._set)
        attributes[INSTALLATION] = self

    def remove(self) -> None:
        """Set back what was there, and warn where somebody else's wrapper lies on top."""
        self._forward.retire()
        del self._attributes[INSTALLATION]
        for name, ours in self._set.items():
            if self._attributes.get(name) is not ours:
                self._warn_wrapped(name)
            elif name in self._previous:
                self._attributes[name] = self._previous[name]
            else:
                del self._attributes[name]

    @staticmethod
    def _warn_wrapped(name: str) -> None:
        warnings.warn(
            f"another library has wrapped this model's {name} after patch(); its wrapper still "
            "calls through adacache_kernels, which passes the call on and does nothing else",
            AdaCacheWarning,
            stacklevel=4,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a patched model is not patched."""
        return None


def installed_engines(model: object) -> list[AnyEngine]:
    """The engine of each transformer.

    Raises:
        ValueError: one is not patched.
    """
    return [_require(transformer) for transformer in _transformers(model)]


def attached_engine(model: object) -> Engine:
    """The engine of a patched model, or of a pipeline with one transformer.

    Raises:
        ValueError: the model is not patched, or with another method, or there are several.
    """
    transformers = _transformers(model)
    if len(transformers) > 1:
        raise ValueError(f"{type(model).__name__} has {len(transformers)} transformers; name one")
    engine = _require(transformers[0])
    if isinstance(engine, MethodEngine):
        raise ValueError(f"the model is patched with {type(engine.config).__name__}")
    return engine


def _engine(transformer: nn.Module) -> AnyEngine | None:
    # A wrapper that torch.compile has put around a patched model is not patched itself.
    installation = vars(uncompiled(transformer)).get(INSTALLATION)
    return installation.engine if isinstance(installation, Installation) else None


def _require(transformer: nn.Module) -> AnyEngine:
    engine = _engine(transformer)
    if engine is None:
        raise ValueError(f"this {type(transformer).__name__} is not patched; call patch() first")
    return engine
