"""The paper's schedule (arXiv 2411.02397)."""

from __future__ import annotations

from dataclasses import dataclass

from .decision import Decision

# The first step has nothing to reuse; the last two decide the fine detail.
PROTECTED_LAST_STEPS = 2


@dataclass(frozen=True)
class AdaCachePolicy:
    """compute(step) = step <= warmup, or step > num_steps - 2, or step >= last.step + last.rate.

    Args:
        num_steps: steps of the generation.
        warmup_steps: first steps that are always computed.
    """

    num_steps: int
    warmup_steps: int = 1

    def observe(self, decision: Decision) -> Decision:
        """The codebook's rate is followed."""
        return decision

    def compute(self, step: int, last: Decision | None) -> bool:
        """Whether `step` (from 1) runs the blocks, given the last computed step's decision."""
        if last is None or step <= self.warmup_steps:
            return True
        if step > self.num_steps - PROTECTED_LAST_STEPS:
            return True
        return step >= last.step + last.rate

    def may_reuse_after(self, step: int) -> bool:
        """Whether the step after `step` may turn out a reused one, so that residuals are needed.

        After the first step it never does: there is no distance yet, and the rate is 1.
        """
        following = step + 1
        return max(2, self.warmup_steps) < following <= self.num_steps - PROTECTED_LAST_STEPS

    @property
    def last_reusable_step(self) -> int:
        return self.num_steps - PROTECTED_LAST_STEPS if self.most_reusable_steps else 0

    @property
    def most_reusable_steps(self) -> int:
        """Steps that may be reused at all; 0 for generations of up to four steps."""
        first = max(2, self.warmup_steps) + 1
        return max(0, self.num_steps - PROTECTED_LAST_STEPS + 1 - first)
