"""Adaptive Caching (AdaCache, arXiv 2411.02397) for video diffusion transformers.

import adacache_kernels as ak
ak.patch(pipe)
"""

from .api.patch import is_patched, patch, reset, summary, unpatch
from .baselines import (
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
from .calibration.calibrate import calibrate
from .calibration.make_profile import make_profile
from .calibration.measure_ratios import measure_ratios
from .config.adacache_config import AdaCacheConfig
from .config.calibration_file import Calibration
from .engine.cache_context import cache_context
from .engine.summary import Summary
from .memory.arena import ArenaStats, CacheArena
from .memory.errors import ArenaError, ArenaOutOfMemoryError, CaptureError, OverBudgetError
from .memory.residual_store import CacheBudgetError
from .options import AdaCacheWarning
from .schedule.profile import Profile

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
