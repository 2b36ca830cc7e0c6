"""The policy of AdaCache (arXiv 2411.02397, "Adaptive Caching")."""

from __future__ import annotations

from dataclasses import dataclass

from .decision import Decision

# The first step has nothing to reuse; the last two determine the fine detail.
PROTECTED_LAST_STEPS = 2


@dataclass(frozen=True)
class AdaCachePolicy:
    """The policy of the paper: a computed step's rate gives the next computed step.

        compute(t) = t <= W  or  t > N - 2  or  t >= s + r

    with `t` the step, counted from 1, `W` the warmup steps, `N` the steps of the generation, `s`
    the last computed step, and `r` the rate that the codebook gave there. The paper has W = 1.

    Args:
        num_steps: number of steps of the generation, N.
        warmup_steps: number of first steps that are always computed, W.
    """

    num_steps: int
    warmup_steps: int = 1

    def observe(self, decision: Decision) -> Decision:
        """Return the decision unchanged: the policy follows the codebook's rate."""
        return decision

    def compute(self, step: int, last: Decision | None) -> bool:
        """Return True if `step` is computed, given the last computed step's decision."""
        if last is None or step <= self.warmup_steps:
            return True
        if step > self.num_steps - PROTECTED_LAST_STEPS:
            return True
        return step >= last.step + last.rate

    def may_reuse_after(self, step: int) -> bool:
        """Return True if step + 1 may be reused.

        Step 2 is never reused: the first step has no distance, and its rate is 1.
        """
        following = step + 1
        return max(2, self.warmup_steps) < following <= self.num_steps - PROTECTED_LAST_STEPS

    @property
    def last_reusable_step(self) -> int:
        """Return the last step that may be reused; 0 if none may."""
        return self.num_steps - PROTECTED_LAST_STEPS if self.most_reusable_steps else 0

    @property
    def most_reusable_steps(self) -> int:
        """Return the most steps that may be reused; 0 for generations of up to four steps."""
        first = max(2, self.warmup_steps) + 1
        return max(0, self.num_steps - PROTECTED_LAST_STEPS + 1 - first)
