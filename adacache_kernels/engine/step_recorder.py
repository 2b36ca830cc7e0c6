"""The interface through which a calibration records computed steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class StepRecorder(Protocol):
    """A receiver of the residuals of every computed step."""

    def take(self, branch: str, residuals: Mapping[str, Tensor]) -> None:
        """Store the residuals of one computed step, `[B, F, S, C]` each, by block list."""

    def take_metric(self, metric_block: tuple[str, int], residual: Tensor, /) -> None:
        """Store the residual `[B, F, S, C]` of the metric block with this list and index."""
