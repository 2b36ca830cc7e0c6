"""Patch models: `patch`, `unpatch`, `reset`, `summary`, and the attributes that these set.

It may import baselines, and the wings below it.
"""

from .patch import is_patched, patch, reset, summary, unpatch

__all__ = [
    "is_patched",
    "patch",
    "reset",
    "summary",
    "unpatch",
]
