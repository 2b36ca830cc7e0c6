"""Make the engine that the settings ask for."""

from __future__ import annotations

from torch import nn

from ..baselines import BaselineConfig
from ..baselines.engine import BaselineEngine
from ..config.adacache_config import AdaCacheConfig
from ..engine.base import AdaCacheEngine, AnyEngine
from ..engine.clocks.clock import Call, StepClock
from ..engine.engine import Engine
from ..engine.graph_engine import GraphEngine
from ..engine.per_branch_engine import PerBranchEngine
from ..engine.per_video_engine import PerVideoEngine
from ..engine.probing_engine import ProbingEngine
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter
from .installation import installation_of


def make_engine(
    transformer: nn.Module,
    found: Adapter | list[str],
    settings: AdaCacheConfig | BaselineConfig,
    clock: StepClock,
    arena: ArenaProvider | None,
) -> AnyEngine:
    """Return the engine of a transformer.

    Args:
        transformer: the transformer.
        found: its adapter, or the names of its block lists if the class is not known.
        settings: the settings of AdaCache or of a baseline.
        clock: assigns a step and a branch to every call.
        arena: provides the memory; None for a baseline.

    Raises:
        ValueError: the settings do not fit the model.
    """
    if isinstance(settings, BaselineConfig):
        return _baseline_engine(transformer, found, settings, clock)
    assert arena is not None
    if isinstance(found, Adapter):
        return _adacache_engine(transformer, found, settings, clock, arena)

    def succeed(adapter: Adapter, call: Call) -> None:
        engine = _adacache_engine(transformer, adapter, settings, clock, arena)
        engine.join(call)
        installation_of(transformer).use(engine)

    def give_up() -> None:
        clock.detach()
        installation_of(transformer).remove()

    return ProbingEngine(transformer, found, settings, clock, arena, succeed, give_up)


def check_arena(arena: object, settings: AdaCacheConfig | BaselineConfig) -> None:
    """Check the arena that the user gave, or None.

    Raises:
        TypeError: it is not a `CacheArena`.
        ValueError: the settings have a budget of their own, or belong to a baseline.
    """
    if arena is None:
        return
    if isinstance(settings, BaselineConfig):
        raise ValueError(
            f"arena: {type(settings).__name__} stores plain tensors and has no arena; leave it out"
        )
    if not isinstance(arena, CacheArena):
        raise TypeError(f"arena is {arena!r}; it must be a CacheArena")
    if settings.max_cache_bytes is not None:
        raise ValueError(
            f"max_cache_bytes={settings.max_cache_bytes!r}: an arena has a budget of its own; give "
            "one of the two"
        )


def _baseline_engine(
    transformer: nn.Module, found: Adapter | list[str], settings: BaselineConfig, clock: StepClock
) -> BaselineEngine:
    if not isinstance(found, Adapter):
        raise ValueError(
            f"{type(settings).__name__}: {type(transformer).__name__} is not a known class; only "
            "AdaCacheConfig can find out how the blocks of a model connect"
        )
    return BaselineEngine(transformer, found, settings, clock)


def _adacache_engine(
    transformer: nn.Module,
    adapter: Adapter,
    settings: AdaCacheConfig,
    clock: StepClock,
    arena: ArenaProvider,
) -> AdaCacheEngine:
    def for_one_video(clock: StepClock) -> AdaCacheEngine:
        kind = GraphEngine if settings.decision == "graph" else Engine
        return kind(transformer, adapter, settings, clock, arena)

    def for_one_branch(clock: StepClock) -> AdaCacheEngine:
        if settings.batch == "each":
            return PerVideoEngine(transformer, adapter, settings, clock, for_one_video)
        return for_one_video(clock)

    if settings.decide_for == "branch":
        return PerBranchEngine(transformer, settings, clock, for_one_branch)
    return for_one_branch(clock)
