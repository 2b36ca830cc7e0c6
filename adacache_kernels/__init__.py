"""Adaptive Caching (AdaCache, arXiv 2411.02397) for video diffusion transformers.

import adacache_kernels as ak
ak.patch(pipe)
"""

from .arena import ArenaStats, CacheArena
from .arena_errors import ArenaError, ArenaOutOfMemoryError, CaptureError, OverBudgetError
from .cache_memory import CacheBudgetError
from .calibrated import Calibration
from .calibration import make_profile
from .config import AdaCacheConfig
from .context import cache_context
from .history import Summary
from .magnitudes import measure_ratios
from .methods import (
    DeltaDiTConfig,
    FirstBlockConfig,
    FixedIntervalConfig,
    MagCacheConfig,
    PABConfig,
    PerLayerConfig,
    TaylorSeerConfig,
    TGATEConfig,
    TimestepEmbeddingConfig,
)
from .patching import is_patched, patch, reset, summary, unpatch
from .profile import Profile
from .targets import calibrate
from .types import AdaCacheWarning

__version__ = "0.1.0"

__all__ = [
    "AdaCacheConfig",
    "AdaCacheWarning",
    "ArenaError",
    "ArenaOutOfMemoryError",
    "ArenaStats",
    "CacheArena",
    "CacheBudgetError",
    "Calibration",
    "CaptureError",
    "DeltaDiTConfig",
    "FirstBlockConfig",
    "FixedIntervalConfig",
    "MagCacheConfig",
    "OverBudgetError",
    "PABConfig",
    "PerLayerConfig",
    "Profile",
    "Summary",
    "TGATEConfig",
    "TaylorSeerConfig",
    "TimestepEmbeddingConfig",
    "cache_context",
    "calibrate",
    "is_patched",
    "make_profile",
    "measure_ratios",
    "patch",
    "reset",
    "summary",
    "unpatch",
]
