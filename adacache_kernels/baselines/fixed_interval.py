"""A fixed interval: compute every k-th step, whatever the video."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_int
from .base import ALL_BLOCKS, BaselineConfig, BlockPolicy, Blocks


@dataclass(frozen=True, kw_only=True)
class FixedIntervalConfig(BaselineConfig):
    """A fixed interval: step s (from 0) is computed if s mod k == 0, or if it is a last step.

    Args:
        interval: k; 1 reuses nothing.
        computed_last: number of last steps that are always computed; AdaCache has 2.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    interval: int = 2
    computed_last: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("interval", self.interval, at_least=1)
        check_int("computed_last", self.computed_last, at_least=0)

    def policy(self, num_steps: int) -> FixedIntervalPolicy:
        """Return the policy of one generation."""
        return FixedIntervalPolicy(self.interval, num_steps - self.computed_last)


@dataclass(frozen=True)
class FixedIntervalPolicy(BlockPolicy):
    """The schedule of one generation."""

    interval: int
    last_reusable: int

    def reuses(self, step: int) -> Blocks | None:
        """Return all blocks, None in a computed step."""
        due = (step - 1) % self.interval == 0 or step > self.last_reusable
        return None if due else ALL_BLOCKS

    def stores(self, step: int) -> Blocks | None:
        """Return all blocks if a later step may be reused."""
        return ALL_BLOCKS if self.interval > 1 and step < self.last_reusable else None
