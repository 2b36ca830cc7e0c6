"""Run the methods that AdaCache is compared with: a config for `patch(model, config)` each.

It may import engine, and the wings below it.
"""

from .adacache_per_layer import AdaCachePerLayerConfig
from .base import BaselineConfig
from .delta_dit import DeltaDiTConfig
from .first_block_cache import FirstBlockCacheConfig
from .fixed_interval import FixedIntervalConfig
from .mag_cache import MagCacheConfig
from .pab import PABConfig
from .taylorseer import TaylorSeerConfig
from .teacache import TeaCacheConfig
from .tgate import TGATEConfig

__all__ = [
    "AdaCachePerLayerConfig",
    "BaselineConfig",
    "DeltaDiTConfig",
    "FirstBlockCacheConfig",
    "FixedIntervalConfig",
    "MagCacheConfig",
    "PABConfig",
    "TGATEConfig",
    "TaylorSeerConfig",
    "TeaCacheConfig",
]
