"""The values of settings, and the warning category, that several wings share."""

from typing import Literal

CacheRes = Literal["t-attn", "s-attn", "ca-mlp", "block"]
"""The measured residual of a metric block."""
Metric = Literal["l1", "l2", "cosine"]
"""The metric of a distance."""
Measure = Literal["distance", "forecast-error"]
"""The quantity that decides."""
CacheDtype = Literal["int8", "fp8"]
"""The dtype of residuals stored in eight bits."""
DecisionMode = Literal["async", "sync", "graph"]
"""The way in which a decision reaches the host, or stays on the device."""
OverBudget = Literal["int8", "fp8", "host", "refuse"]
"""An alternative for a plan that exceeds the budget."""
DecideFor = Literal["step", "branch"]
"""The scope of a decision."""
BatchPolicy = Literal["any", "mean", "each"]
"""The decision for several videos in a batch."""
ForecastTime = Literal["step", "timestep", "sigma", "log-snr"]
"""The time variable of a forecast."""


class AdaCacheWarning(UserWarning):
    """A user warning: the cache cannot do what was asked, so steps are computed in full."""
