"""Find the settings for a target: record, simulate, search, refine, save.

It may import api, and the wings below it.
"""

from .calibrate import calibrate
from .make_profile import make_profile
from .measure_ratios import measure_ratios

__all__ = [
    "calibrate",
    "make_profile",
    "measure_ratios",
]
