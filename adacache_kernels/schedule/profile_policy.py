"""The schedule of a calibrated profile, stretched or shortened by what this video shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from .adacache import PROTECTED_LAST_STEPS
from .decision import Decision
from .planner import Plan

# How much of the mean of the log ratios the newest one makes. With 0.15 and 0.7 the demo's videos
# were the same within the standard error.
NEWEST = 0.35


class ProfilePolicy:
    """next computed step = that of the plan at price / ratio^(2 * adaptivity).

        log ratio <- (1 - NEWEST) * log ratio + NEWEST * log(forecast error / calibrated error)

    A video whose residuals are forecast worse than those of the calibration runs by a factor has
    costs that are larger by its square; costs that grow are the same as a price that falls.

    Args:
        plan: of the profile.
        price: of a computed step, which sets how many there are.
        expected: from a history (newest first) and a step to the calibrated forecast error.
        adaptivity: 0 follows the plan whatever the video, 1 believes the ratio.
        warmup_steps: first steps that are always computed.
        longest: most steps from a computed one to the next.
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
        """Plan the next computed step; where there is no finite error, it is the very next one."""
        self._next = decision.step + self._rate(decision)
        return replace(decision, rate=self._next - decision.step)

    def _rate(self, decision: Decision) -> int:
        step, history = decision.step, self._steps[::-1]
        self._steps.append(step)
        if decision.not_finite or decision.zero_denominator:
            return 1
        if history and decision.distance:
            # Motion regularisation included, where it is on.
            error = decision.distance * (step - history[0])
            ratio = math.log(error / self._expected(history, step))
            self.log_ratio += NEWEST * (ratio - self.log_ratio)
        price = self._price * math.exp(-2 * self._adaptivity * self.log_ratio)
        before = step - history[0] if history else 0
        return min(self._longest, self._plan.gap(price, step, before))

    def compute(self, step: int, last: Decision | None) -> bool:
        if last is None or step <= self._warmup_steps or step > self.last_reusable_step:
            return True
        return step >= self._next

    def may_reuse_after(self, step: int) -> bool:
        return self._warmup_steps < step + 1 <= self.last_reusable_step

    @property
    def last_reusable_step(self) -> int:
        return self._plan.num_steps - PROTECTED_LAST_STEPS

    @property
    def most_reusable_steps(self) -> int:
        return max(0, self.last_reusable_step - self._warmup_steps)
