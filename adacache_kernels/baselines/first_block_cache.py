"""First Block Cache: the change of the first block's residual decides for the other blocks."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_finite
from .base import BaselineConfig, ChangePolicy


@dataclass(frozen=True, kw_only=True)
class FirstBlockCacheConfig(BaselineConfig):
    """First Block Cache (chengzeyi/ParaAttention; diffusers has it as FirstBlockCache).

        change = mean |r - q| / mean |q|;  reuse  <=>  change < threshold

    Here `r` is the first block's residual of the video now, and `q` that of the last computed step.
    A reused step runs the first block and adds the stored residual of all other blocks.

    The change is read in the middle of the forward call: the host waits for the device once per
    step. The first guidance branch decides for the whole step; in the originals each branch
    decides for itself.

    Args:
        threshold: a step is reused if its change is below it; 0 reuses nothing.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    threshold: float = 0.08

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("threshold", self.threshold, at_least=0.0)

    def policy(self, _num_steps: int) -> FirstBlockCachePolicy:
        """Return the policy of one generation."""
        return FirstBlockCachePolicy(self.threshold)


@dataclass(frozen=True)
class FirstBlockCachePolicy(ChangePolicy):
    """The schedule of one generation."""

    threshold: float

    def asks(self, step: int) -> bool:
        """Return True unless the threshold is 0."""
        return self.threshold > 0.0

    def reuses(self, step: int, change: float | None) -> bool:
        """Return True if the change is below the threshold, which NaN is not."""
        return change is not None and change < self.threshold
