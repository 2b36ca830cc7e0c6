"""Names that several layers share."""

from typing import Literal

CacheRes = Literal["t-attn", "s-attn", "ca-mlp", "block"]
Metric = Literal["l1", "l2", "cosine"]
Measure = Literal["distance", "forecast-error"]
CacheDtype = Literal["int8", "fp8"]
DecisionMode = Literal["async", "sync", "graph"]
OverBudget = Literal["int8", "fp8", "host", "refuse"]
DecideFor = Literal["step", "branch"]
BatchPolicy = Literal["any", "mean", "each"]
ForecastTime = Literal["step", "timestep", "sigma", "log-snr"]


class AdaCacheWarning(UserWarning):
    """Something keeps the cache from doing what was asked; steps are computed in full instead."""
