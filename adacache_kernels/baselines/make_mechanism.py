"""From the settings of a method to what runs its forwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from ..engine.user_warnings import UserWarnings
from ..models import Adapter
from ..models.module_names import module_names_for
from .adacache_per_layer import AdaCachePerLayerConfig
from .base import BaselineConfig
from .counters import Counters
from .delta_dit import DeltaDiTConfig
from .first_block_cache import FirstBlockCacheConfig
from .fixed_interval import FixedIntervalConfig
from .mag_cache import MagCacheConfig
from .mag_ratios import RatioRecording, RecordRatiosConfig
from .mechanisms.block_visits import BlockVisit
from .mechanisms.reuse_block_range import RangeReuse, check_blocks
from .mechanisms.reuse_modules import ModuleReuse, Original, units_of
from .mechanisms.reuse_on_change import ChangeReuse, Watch
from .mechanisms.reuse_per_block import LayerReuse
from .pab import PABConfig
from .taylorseer import TaylorSeerConfig
from .teacache import TeaCacheConfig
from .tgate import TGATEConfig


class BranchState(Protocol):
    """One branch of guidance."""

    def forget(self) -> None:
        """Nothing that is kept holds any longer."""

    def tensors(self) -> Iterable[Tensor]:
        """All that it holds."""


class Mechanism(Protocol):
    """Runs the forwards of one model under one method."""

    @property
    def by_timestep(self) -> bool:
        """Whether `begin_step` needs to be told the timestep."""

    def begin(self, num_steps: int, tally: Counters) -> None:
        """A generation begins."""

    def branch(self, name: str) -> Any:
        """State of a branch of guidance."""

    def begin_step(
        self,
        step: int,
        timestep: float | None,
        branches: Mapping[str, Any],
        *,
        guided: bool,
    ) -> None:
        """A step begins, counted from 1; `guided` where it is known that there is guidance."""

    def run(
        self,
        branch: Any,
        arguments: Mapping[str, Any],
        video: tuple[int, int],
        original: Original,
    ) -> Any:
        """One forward of a model whose video has (batch, frames)."""


def mechanism_for(
    model: nn.Module, adapter: Adapter, config: BaselineConfig, notices: UserWarnings
) -> Mechanism:
    """What runs a model's forwards by a method.

    Raises:
        ValueError: the model lacks what the method needs; names the setting.
    """
    if isinstance(config, PABConfig | TaylorSeerConfig | TGATEConfig):
        units = units_of(model, config.kinds)
        return ModuleReuse(model, adapter, units, config.policy)
    if isinstance(config, AdaCachePerLayerConfig):
        return LayerReuse(model, adapter, config.policy, notices)
    if isinstance(config, FirstBlockCacheConfig):
        return ChangeReuse(model, adapter, config.policy, notices)
    if isinstance(config, TeaCacheConfig):
        watch = _watch(model, config)
        return ChangeReuse(model, adapter, config.policy, notices, watch)
    if isinstance(config, DeltaDiTConfig):
        delta = RangeReuse(model, adapter, config.policy, notices)
        for name in ("front", "back"):
            check_blocks(delta.places, name, getattr(config, name), type(model).__name__)
        return delta
    if isinstance(config, FixedIntervalConfig | MagCacheConfig):
        return RangeReuse(model, adapter, config.policy, notices)
    if isinstance(config, RecordRatiosConfig):
        return RatioRecording(model, adapter)
    raise TypeError(f"{type(config).__name__} is no method that can be run")


def _watch(model: nn.Module, config: TeaCacheConfig) -> Watch:
    units, name = module_names_for(model), type(model).__name__
    if units is None:
        raise ValueError(
            f"{name}: it is not known what its first block is given, so that it cannot be watched; "
            "choose FirstBlockConfig, which needs no more than the blocks"
        )
    parameter, compute = units.timestep, units.modulated

    def timestep(_place: BlockVisit, arguments: Mapping[str, Any]) -> Tensor:
        value: Tensor = arguments[parameter]
        return value

    if config.watched == "timestep":
        return timestep
    if compute is None:
        raise ValueError(
            f"watched={config.watched!r}: it is not known how {name} modulates its first block's "
            'input; watch the "timestep"'
        )

    def modulated(place: BlockVisit, arguments: Mapping[str, Any]) -> Tensor:
        return compute(place.block, arguments)

    return modulated
