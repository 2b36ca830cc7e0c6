"""Run the forward calls of one model under a policy.

It may import config, and the wings below it.
"""

from .cache_context import cache_context
from .reports.summary import Summary

__all__ = [
    "Summary",
    "cache_context",
]
