"""The policy of a calibrated profile: its plan, adapted to the forecast errors of this video."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from .adacache import PROTECTED_LAST_STEPS
from .decision import Decision
from .planner import Plan

# Weight of the newest log ratio in the running mean. With 0.15 and 0.7 the PSNR of the demo's
# videos was the same within the standard error.
NEWEST = 0.35


class ProfilePolicy:
    """The policy that follows the plan of a profile at a price adapted to the video.

        log r <- (1 - NEWEST) * log r + NEWEST * log(e / E)
        price <- P * r^(-2 * A)

    with `e` the measured forecast error, `E` the calibrated one, `r` their running ratio, `P` the
    price of the plan, and `A` the adaptivity. Errors that are larger by a factor make the costs of
    the plan larger by its square, which equals a price that is lower by its square. The method is
    this package's; the paper has no counterpart.

    Args:
        plan: plan of the profile.
        price: price P of a computed step, which determines their number.
        expected: function from a history (newest step first) and a step to the calibrated error E.
        adaptivity: A, 0 to 1; 0 follows the plan for every video.
        warmup_steps: number of first steps that are always computed.
        longest: most steps from a computed step to the next one; None: no limit.
    """

    def __init__(
        self,
        plan: Plan,
        price: float,
        expected: Callable[[Sequence[int], int], float],
        adaptivity: float,
        warmup_steps: int = 1,
        longest: int | None = None,
    ) -> None:
        self._plan = plan
        self._price = price
        self._expected = expected
        self._adaptivity = adaptivity
        self._warmup_steps = warmup_steps
        self._longest = longest or plan.num_steps
        self._steps: list[int] = []
        self._next = 1
        self.log_ratio = 0.0

    def observe(self, decision: Decision) -> Decision:
        """Return the decision with the plan's rate; 1 if there is no finite forecast error."""
        self._next = decision.step + self._rate(decision)
        return replace(decision, rate=self._next - decision.step)

    def _rate(self, decision: Decision) -> int:
        step, history = decision.step, self._steps[::-1]
        self._steps.append(step)
        if decision.not_finite or decision.zero_denominator:
            return 1
        if history and decision.distance:
            # The distance includes motion regularization if that is on.
            error = decision.distance * (step - history[0])
            ratio = math.log(error / self._expected(history, step))
            self.log_ratio += NEWEST * (ratio - self.log_ratio)
        price = self._price * math.exp(-2 * self._adaptivity * self.log_ratio)
        before = step - history[0] if history else 0
        return min(self._longest, self._plan.gap(price, step, before))

    def compute(self, step: int, last: Decision | None) -> bool:
        """Return True if `step` is computed."""
        if last is None or step <= self._warmup_steps or step > self.last_reusable_step:
            return True
        return step >= self._next

    def may_reuse_after(self, step: int) -> bool:
        """Return True if step + 1 may be reused."""
        return self._warmup_steps < step + 1 <= self.last_reusable_step

    @property
    def last_reusable_step(self) -> int:
        """Return the last step that may be reused."""
        return self._plan.num_steps - PROTECTED_LAST_STEPS

    @property
    def most_reusable_steps(self) -> int:
        """Return the most steps that may be reused."""
        return max(0, self.last_reusable_step - self._warmup_steps)
