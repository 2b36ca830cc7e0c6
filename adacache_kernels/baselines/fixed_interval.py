"""Every k-th step, whatever the video."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_int
from .base import WHOLE, BaselineConfig, Blocks


@dataclass(frozen=True, kw_only=True)
class FixedIntervalConfig(BaselineConfig):
    """A fixed interval: step s (from 0) runs the blocks where s mod k == 0, or among the last ones.

    Args:
        interval: k; 1 reuses nothing.
        computed_last: last steps that always run the blocks; AdaCache protects 2.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """

    interval: int = 2
    computed_last: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("interval", self.interval, at_least=1)
        check_int("computed_last", self.computed_last, at_least=0)

    def policy(self, num_steps: int) -> FixedIntervalPolicy:
        """Of one generation."""
        return FixedIntervalPolicy(self.interval, num_steps - self.computed_last)


@dataclass(frozen=True)
class FixedIntervalPolicy:
    """The schedule of one generation."""

    interval: int
    last_reusable: int

    def reuses(self, step: int) -> Blocks | None:
        due = (step - 1) % self.interval == 0 or step > self.last_reusable
        return None if due else WHOLE

    def keeps(self, step: int) -> Blocks | None:
        return WHOLE if self.interval > 1 and step < self.last_reusable else None

    def computed(self, step: int) -> None:
        """Step numbers alone decide."""
