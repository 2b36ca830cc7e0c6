"""What users call: patch, unpatch, reset, summary; and what these set on a model.

It may import baselines, engine, and what stands below them.
"""

from .patch import is_patched, patch, reset, summary, unpatch

__all__ = [
    "is_patched",
    "patch",
    "reset",
    "summary",
    "unpatch",
]
