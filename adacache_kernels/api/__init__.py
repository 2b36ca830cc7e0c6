"""Patch models: `patch`, `unpatch`, `reset`, `summary`, and the attributes that these set.

The wing may import baselines, engine, and the wings below them.
"""

from .patch import is_patched, patch, reset, summary, unpatch

__all__ = [
    "is_patched",
    "patch",
    "reset",
    "summary",
    "unpatch",
]
