"""A tiny pipeline with two transformers that share the steps of a generation, as in Wan 2.2."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import run_wan, wan

STEPS = 16
NAMES = ("transformer", "transformer_2")


def experts(boundary: float = 0.5) -> Any:
    """Return a pipeline whose first expert runs the steps above the boundary."""
    return wan(transformer_2=TINY["wan"].build(seed=5), boundary_ratio=boundary)


def run(pipe: Any, **kwargs: Any) -> Tensor:
    return run_wan(pipe, STEPS, **kwargs)


def by_expert(pipe: Any) -> list[list[int]]:
    """Return the steps of each expert."""
    summaries = [ak.summary(getattr(pipe, name)) for name in NAMES]
    return [sorted([*s.computed_steps, *s.reused_steps]) for s in summaries]
