"""Decide which steps are computed: policies, forecasts, profiles and presets.

This wing is pure Python with NumPy. It may import options only.
"""

from .adacache import AdaCachePolicy
from .decision import Decision
from .fixed import FixedPolicy, evenly_spread
from .forecast import FittedForecast, Forecast, PolynomialForecast
from .planner import Plan
from .policy import Policy
from .profile import Profile
from .profile_policy import ProfilePolicy

__all__ = [
    "AdaCachePolicy",
    "Decision",
    "FittedForecast",
    "FixedPolicy",
    "Forecast",
    "Plan",
    "Policy",
    "PolynomialForecast",
    "Profile",
    "ProfilePolicy",
    "evenly_spread",
]
