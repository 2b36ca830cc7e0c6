"""Policies: from what is known of a generation to what a step does. No torch."""

from .adacache import AdaCachePolicy
from .decision import Decision
from .fixed import FixedPolicy, evenly_spread
from .forecast import FittedForecast, Forecast, PolynomialForecast
from .plan import Plan
from .policy import Policy
from .profiled import ProfilePolicy

__all__ = [
    "AdaCachePolicy",
    "Decision",
    "FittedForecast",
    "FixedPolicy",
    "Forecast",
    "Plan",
    "Policy",
    "PolynomialForecast",
    "ProfilePolicy",
    "evenly_spread",
]
