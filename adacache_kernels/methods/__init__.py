"""The methods that AdaCache is compared with, each as a config for `patch(model, config)`."""

from .base import MethodConfig
from .delta_dit import DeltaDiTConfig
from .first_block import FirstBlockConfig
from .fixed_interval import FixedIntervalConfig
from .mag_cache import MagCacheConfig
from .pab import PABConfig
from .per_layer import PerLayerConfig
from .taylorseer import TaylorSeerConfig
from .tgate import TGATEConfig
from .timestep_embedding import TimestepEmbeddingConfig

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
