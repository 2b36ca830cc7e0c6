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

    def compute(self, step: int, last: Decision | None) -> bool:
        """Whether `step` (from 1) runs the blocks, given the last computed step's decision."""
        if last is None or step <= self.warmup_steps:
            return True
        if step > self.num_steps - PROTECTED_LAST_STEPS:
            return True
        return step >= last.step + last.rate

    @property
    def most_reusable_steps(self) -> int:
        """Steps that are neither warm-up nor protected; 0 for generations of up to three steps."""
        return max(0, self.num_steps - PROTECTED_LAST_STEPS - self.warmup_steps)
