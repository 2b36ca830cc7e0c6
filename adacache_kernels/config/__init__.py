"""Check settings, and read and write calibration files.

It may import memory, and the wings below it.
"""

from .adacache_config import AdaCacheConfig
from .calibration_file import Calibration

__all__ = [
    "AdaCacheConfig",
    "Calibration",
]
