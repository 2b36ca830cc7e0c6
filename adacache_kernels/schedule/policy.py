"""What every policy can be asked."""

from __future__ import annotations

from typing import Protocol

from .decision import Decision


class Policy(Protocol):
    """Which steps of one generation run the blocks; steps are counted from 1."""

    def observe(self, decision: Decision) -> Decision:
        """A computed step has been measured; the same with the rate that is followed."""

    def compute(self, step: int, last: Decision | None) -> bool:
        """Whether `step` runs the blocks, given the last computed step's decision."""

    def may_reuse_after(self, step: int) -> bool:
        """Whether the step after `step` may turn out a reused one, so that residuals are needed."""

    @property
    def last_reusable_step(self) -> int:
        """No later step can be a reused one; 0 where none can."""

    @property
    def most_reusable_steps(self) -> int:
        """Steps that may be reused at all."""
