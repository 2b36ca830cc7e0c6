"""Store residuals: the arena, its plan, its slots and its budget.

It may import schedule, and the wings below it.
"""

from .arena import ArenaStats, CacheArena
from .errors import (
    ArenaError,
    ArenaOutOfMemoryError,
    CacheBudgetError,
    CaptureError,
    OverBudgetError,
)

__all__ = [
    "ArenaError",
    "ArenaOutOfMemoryError",
    "ArenaStats",
    "CacheArena",
    "CacheBudgetError",
    "CaptureError",
    "OverBudgetError",
]
