"""Decide which steps are computed: policies, forecasts, profiles, presets. No tensors.

It may import models, and the wings below it.
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
