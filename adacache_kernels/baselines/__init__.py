"""The methods that AdaCache is compared with, each as a config for `patch(model, config)`."""

from .adacache_per_layer import PerLayerConfig
from .base import MethodConfig
from .delta_dit import DeltaDiTConfig
from .first_block_cache import FirstBlockConfig
from .fixed_interval import FixedIntervalConfig
from .mag_cache import MagCacheConfig
from .pab import PABConfig
from .taylorseer import TaylorSeerConfig
from .teacache import TimestepEmbeddingConfig
from .tgate import TGATEConfig

__all__ = [
    "DeltaDiTConfig",
    "FirstBlockConfig",
    "FixedIntervalConfig",
    "MagCacheConfig",
    "MethodConfig",
    "PABConfig",
    "PerLayerConfig",
    "TGATEConfig",
    "TaylorSeerConfig",
    "TimestepEmbeddingConfig",
]
