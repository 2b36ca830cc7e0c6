"""Run the forward calls of one model under a policy.

The wing may import config, memory, schedule, models, ops and kernels.
"""

from .cache_context import cache_context
from .reports.summary import Summary

__all__ = [
    "Summary",
    "cache_context",
]
