"""The interface of an object that records every computed step, as calibration does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class StepRecorder(Protocol):
    """Receives the residuals of every computed step."""

    def take(self, branch: str, residuals: Mapping[str, Tensor]) -> None:
        """Store the residuals of one computed step, `[B, F, S, C]` each, by block list."""

    def take_metric(self, place: tuple[str, int], residual: Tensor) -> None:
        """Store the residual `[B, F, S, C]` of the metric block at (block list, index)."""
