"""Check settings, and read and write calibration files.

It may import schedule, and what stands below it.
"""

from .adacache_config import AdaCacheConfig
from .calibration_file import Calibration

__all__ = [
    "AdaCacheConfig",
    "Calibration",
]
