"""First-block caching: the first block always runs, and tells how much the others would change."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_finite
from .base import BaselineConfig


@dataclass(frozen=True, kw_only=True)
class FirstBlockCacheConfig(BaselineConfig):
    """First Block Cache (chengzeyi/ParaAttention; diffusers has it as FirstBlockCache).

        change = mean |r - q| / mean |q|;  reuse  <=>  change < threshold

    with `r` the first block's residual now and `q` that of the last computed step, of the video. A
    reused step adds to what leaves the first block what all others added in the last computed step.

    The change is read in the middle of the forward: there the host waits for the device, once a
    step. The first branch of guidance decides for all of a step; the originals decide for each.

    Args:
        threshold: 0 reuses nothing.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """

    threshold: float = 0.08

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("threshold", self.threshold, at_least=0.0)

    def policy(self, _num_steps: int) -> FirstBlockCachePolicy:
        """Of one generation."""
        return FirstBlockCachePolicy(self.threshold)


@dataclass(frozen=True)
class FirstBlockCachePolicy:
    """The schedule of one generation."""

    threshold: float

    def asks(self, step: int) -> bool:
        return self.threshold > 0.0

    def reuses(self, step: int, change: float | None) -> bool:
        # A change that is not a number is not below anything.
        return change is not None and change < self.threshold
