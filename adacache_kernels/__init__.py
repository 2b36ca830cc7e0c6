"""Adaptive Caching (AdaCache, arXiv 2411.02397) for video diffusion transformers.

import adacache_kernels as ak

ak.patch(pipe, "forecast")
print(ak.summary(pipe))
"""

from . import baselines
from .api import is_patched, patch, reset, summary, unpatch
from .calibration import calibrate, make_profile, measure_ratios
from .config import AdaCacheConfig, Calibration
from .engine import Summary, cache_context
from .memory import ArenaError, ArenaStats, CacheArena, CacheBudgetError
from .options import AdaCacheWarning
from .schedule import Profile

__version__ = "0.1.0"

__all__ = [
    "AdaCacheConfig",
    "AdaCacheWarning",
    "ArenaError",
    "ArenaStats",
    "CacheArena",
    "CacheBudgetError",
    "Calibration",
    "Profile",
    "Summary",
    "baselines",
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


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
