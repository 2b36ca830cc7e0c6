"""Make the engine that settings ask for."""

from __future__ import annotations

from torch import nn

from ..baselines import BaselineConfig
from ..baselines.engine import BaselineEngine
from ..config.adacache_config import AdaCacheConfig
from ..engine.base import AnyEngine
from ..engine.clocks.clock import Call, StepClock
from ..engine.engine import Engine
from ..engine.per_branch_engine import PerBranchEngine
from ..engine.per_video_engine import PerVideoEngine, make_engine
from ..engine.probing_engine import ProbingEngine
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter
from .installation import installation_of


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
