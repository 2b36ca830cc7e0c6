"""Make the engine that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..baselines import BaselineConfig
from ..baselines.engine import BaselineEngine
from ..config.adacache_config import AdaCacheConfig
from ..engine.base import AdaCacheEngine, AnyEngine
from ..engine.clocks.clock import Call, EngineClock
from ..engine.clocks.step_clock import StepClock
from ..engine.clocks.track_clock import TrackClock
from ..engine.engine import Engine
from ..engine.graph_engine import GraphEngine
from ..engine.per_branch_engine import PerBranchEngine
from ..engine.per_video_engine import PerVideoEngine
from ..engine.probing_engine import ProbingEngine
from ..engine.ranks.ranks import Ranks
from ..engine.router import Router
from ..memory.arena import CacheArena
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter, GivenFrames
from ..models.other_libraries.rank_groups import Role
from .installation import installation_of


def make_router(
    transformer: nn.Module,
    found: Adapter | list[str],
    settings: AdaCacheConfig | BaselineConfig,
    clock: StepClock,
    arena: ArenaProvider | None,
    frames: GivenFrames | None = None,
    process_groups: Mapping[Role, Any] | None = None,
) -> Router:
    """Return the router of a transformer.

    Args:
        transformer: the transformer.
        found: its adapter, or the names of its block lists if the class is not known.
        settings: the settings of AdaCache or of a baseline.
        clock: finds generation, step and branch of every call.
        arena: provides the memory; None for a baseline.
        frames: the frames that the user gave for a model whose class is not known.
        process_groups: the process groups that the user gave, by role.

    Raises:
        ValueError: the settings do not fit the model.
    """
    if isinstance(settings, BaselineConfig):
        adapter = _known_adapter(transformer, found, settings)
        return Router(
            transformer,
            clock,
            lambda own: BaselineEngine(transformer, adapter, settings, own, process_groups),
        )
    assert arena is not None
    ranks = Ranks(transformer, settings, process_groups)
    if isinstance(found, Adapter):
        router = Router(transformer, clock, _maker(transformer, found, settings, arena, ranks))
    else:
        router = _probing_router(transformer, found, settings, clock, arena, ranks, frames)
    arena.add_holder(router)
    return router


def _probing_router(
    transformer: nn.Module,
    names: list[str],
    settings: AdaCacheConfig,
    clock: StepClock,
    arena: ArenaProvider,
    ranks: Ranks,
    frames: GivenFrames | None,
) -> Router:
    def succeed(adapter: Adapter, call: Call) -> None:
        make = _maker(transformer, adapter, settings, arena, ranks)
        installation_of(transformer).router.use(make, call)

    def give_up() -> None:
        installation_of(transformer).give_up()

    def probe(own: TrackClock) -> AnyEngine:
        return ProbingEngine(transformer, names, settings, own, arena, succeed, give_up, frames)

    return Router(transformer, clock, probe)


def _maker(
    transformer: nn.Module,
    adapter: Adapter,
    settings: AdaCacheConfig,
    arena: ArenaProvider,
    ranks: Ranks,
) -> Callable[[TrackClock], AdaCacheEngine]:
    return lambda own: _adacache_engine(transformer, adapter, settings, own, arena, ranks)


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


def _known_adapter(
    transformer: nn.Module, found: Adapter | list[str], settings: BaselineConfig
) -> Adapter:
    if not isinstance(found, Adapter):
        raise ValueError(
            f"{type(settings).__name__}: {type(transformer).__name__} is not a known class; only "
            "AdaCacheConfig can find out how the blocks of a model connect"
        )
    return found


def _adacache_engine(
    transformer: nn.Module,
    adapter: Adapter,
    settings: AdaCacheConfig,
    clock: EngineClock,
    arena: ArenaProvider,
    ranks: Ranks,
) -> AdaCacheEngine:
    def for_one_video(clock: EngineClock) -> AdaCacheEngine:
        kind = GraphEngine if settings.decision == "graph" else Engine
        return kind(transformer, adapter, settings, clock, arena, ranks)

    def for_one_branch(clock: EngineClock) -> AdaCacheEngine:
        if settings.batch == "each":
            return PerVideoEngine(transformer, adapter, settings, clock, for_one_video)
        return for_one_video(clock)

    if settings.decide_for == "branch":
        return PerBranchEngine(transformer, settings, clock, for_one_branch)
    return for_one_branch(clock)
