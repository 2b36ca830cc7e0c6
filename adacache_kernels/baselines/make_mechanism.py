"""Make the mechanism of a method from its config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..engine.reports.user_warnings import UserWarnings
from ..models import Adapter
from ..models.block_stand_in import BlockCall
from ..models.module_names import module_names_for
from .adacache_per_layer import AdaCachePerLayerConfig
from .base import BaselineConfig
from .delta_dit import DeltaDiTConfig
from .first_block_cache import FirstBlockCacheConfig
from .fixed_interval import FixedIntervalConfig
from .mag_cache import MagCacheConfig
from .mag_ratios import RatioRecording, RecordRatiosConfig
from .mechanisms.mechanism import Mechanism
from .mechanisms.reuse_block_range import RangeReuse, check_range
from .mechanisms.reuse_modules import ModuleReuse
from .mechanisms.reuse_on_change import ChangeReuse, Watch
from .mechanisms.reuse_per_block import LayerReuse
from .pab import PABConfig
from .taylorseer import TaylorSeerConfig
from .teacache import TeaCacheConfig
from .tgate import TGATEConfig


def mechanism_for(
    model: nn.Module, adapter: Adapter, config: BaselineConfig, warnings: UserWarnings
) -> Mechanism[Any]:
    """Return the mechanism that runs a model's forward calls under a method.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        config: the method and its settings.
        warnings: the warnings of the model.

    Raises:
        TypeError: `config` is not the config of a method.
        ValueError: the model lacks what the method needs; names the setting.
    """
    for cls in type(config).__mro__:
        if cls in MECHANISMS:
            return MECHANISMS[cls](model, adapter, config, warnings)
    raise TypeError(
        f"{type(config).__name__} is not the config of a method; choose one of "
        "adacache_kernels.baselines"
    )


def _delta_dit(
    model: nn.Module, adapter: Adapter, config: DeltaDiTConfig, warnings: UserWarnings
) -> RangeReuse:
    mechanism = RangeReuse(model, adapter, config, warnings)
    for name in ("front", "back"):
        check_range(mechanism.blocks, name, getattr(config, name), type(model).__name__)
    return mechanism


def _teacache(
    model: nn.Module, adapter: Adapter, config: TeaCacheConfig, warnings: UserWarnings
) -> ChangeReuse:
    return ChangeReuse(model, adapter, config, warnings, _watch(model, config))


def _watch(model: nn.Module, config: TeaCacheConfig) -> Watch:
    units, name = module_names_for(model), type(model).__name__
    if units is None:
        raise ValueError(
            f"{name}: it is not known what enters its first block, so TeaCache cannot compare it; "
            "choose FirstBlockCacheConfig, which needs only the blocks"
        )
    parameter, compute = units.timestep, units.modulated

    def timestep(call: BlockCall) -> Tensor:
        value: Tensor = call.arguments[parameter]
        return value

    if config.watched == "timestep":
        return timestep
    if compute is None:
        raise ValueError(
            f"watched={config.watched!r}: it is not known how {name} modulates its first block's "
            'input; set watched="timestep"'
        )

    def modulated(call: BlockCall) -> Tensor:
        return compute(call.block, call.arguments)

    return modulated


MECHANISMS: dict[type, Callable[[nn.Module, Adapter, Any, UserWarnings], Mechanism[Any]]] = {
    AdaCachePerLayerConfig: LayerReuse,
    DeltaDiTConfig: _delta_dit,
    FirstBlockCacheConfig: ChangeReuse,
    FixedIntervalConfig: RangeReuse,
    MagCacheConfig: RangeReuse,
    PABConfig: ModuleReuse,
    RecordRatiosConfig: RatioRecording,
    TGATEConfig: ModuleReuse,
    TaylorSeerConfig: ModuleReuse,
    TeaCacheConfig: _teacache,
}
