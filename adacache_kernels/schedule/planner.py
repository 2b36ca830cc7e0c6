"""Plans: the best schedules for the recorded residuals of calibration generations.

The squared error of the video is, approximately, a sum over the intervals between computed steps:

    cost(t0, t1, t) = s(t) * ||sum_j (R_j - F(j))||^2        t1 < j < t

with `t` the computed step that ends the interval, `t1` and `t0` the two computed steps before it,
`R_j` the residual of step `j`, `F(j)` its forecast from the steps t1 and t0, and `s(t)` the
sensitivity of the video to an error at step `t`. The plan for a price is the schedule with the
lowest sum of costs plus price times the number of computed steps. Dynamic programming over pairs of
computed steps finds it. The method is this package's; the paper has no counterpart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .forecast import fit

Array = NDArray[np.float64]
# Longest interval as a fraction of the generation: 14 of 50 steps. The longest interval in the
# demo's plans is 12 of 50 steps, with 9 computed steps.
LONGEST = 0.28
# Levels of a price per factor of two: prices are rounded to them, so that few plans are made. One
# computed step more or less changes the price by about a third of a factor of two.
LEVELS = 32


class Plan:
    """The best schedules for a model, a scheduler and a number of steps.

    Args:
        gram: inner products of the residuals, float64 [steps, steps].
        sensitivity: squared error of the video per squared error of the residuals at each step,
            float64 [steps].
        order: order of the forecast. Order 2 has the costs of order 1.
    """

    def __init__(self, gram: Array, sensitivity: Array, order: int) -> None:
        self.num_steps = len(gram)
        self._gram = gram
        self._sensitivity = sensitivity
        self._order = min(order, 1)
        self._longest = max(2, math.ceil(LONGEST * self.num_steps))
        self._gaps_by_level: dict[int, NDArray[np.int64]] = {}

    def schedule(self, price: float) -> list[int]:
        """Return the computed steps, counted from 1, of the best schedule at a price."""
        gaps = self.gaps(price)
        steps, gap = [1], 0
        while steps[-1] < self.num_steps:
            gap = int(gaps[steps[-1], gap])
            steps.append(steps[-1] + gap)
        return steps

    def gaps(self, price: float) -> NDArray[np.int64]:
        """Return the best gap from each computed step to the next one.

        Returns:
            int64 [step, gap before it]; a gap of 0 before it means that it is the first step.
        """
        longest, last = self._longest, self.num_steps
        best = np.zeros((last + longest + 1, longest + 1), dtype=np.int64)
        value = np.full((last + longest + 1, longest + 1), np.inf)
        value[last] = 0.0
        following = np.arange(1, longest + 1)
        for step in range(last - 1, 0, -1):
            # A gap leads from the state (step, gap before) to (step + gap, gap).
            total = self._costs[step] + price + value[step + following, following]
            # The last two steps are computed, as in the paper: they determine the fine detail.
            # Reuse of the last but one cost the demo's still videos 4 dB at 17 of 50 steps.
            if step < last - 1:
                total[:, last - step - 1 :] = np.inf
            best[step] = 1 + total.argmin(axis=1)
            value[step] = total.min(axis=1)
        return best

    def gap(self, price: float, step: int, before: int) -> int:
        """Return the gap from a computed step to the next one.

        Args:
            price: price of a computed step.
            step: the computed step, counted from 1.
            before: gap from the computed step before it; 0 if it is the first.
        """
        level = round(LEVELS * math.log2(price))
        if level not in self._gaps_by_level:
            self._gaps_by_level[level] = self.gaps(2 ** (level / LEVELS))
        return int(self._gaps_by_level[level][step, min(before, self._longest)])

    def intervals(self, steps: Sequence[int]) -> list[tuple[int, float]]:
        """Return the end and the cost of each interval of a schedule of computed steps."""
        intervals, before = [], 0
        for step, following in itertools.pairwise(steps):
            gap = following - step
            # An interval longer than the longest of a plan costs at least as much as that.
            costs = self._costs[step, min(before, self._longest)]
            intervals.append((following, float(costs[min(gap, self._longest) - 1])))
            before = gap
        return intervals

    @property
    def fewest(self) -> int:
        """Return the fewest computed steps of a schedule."""
        return self._price_list[0][0]

    @property
    def most(self) -> int:
        """Return the number of computed steps at the lowest price."""
        return self._price_list[0][-1]

    def price_for(self, count: float) -> float:
        """Return the price at which about `count` steps are computed.

        `count` may be a fraction: the logarithm of the price is interpolated between the integers.

        Raises:
            ValueError: `count` is below `fewest` or above `most`.
        """
        counts, log_prices = self._price_list
        if not counts[0] <= count <= counts[-1]:
            raise ValueError(
                f"computed_steps is {count:g}; of {self.num_steps} steps, this profile's schedules "
                f"compute {counts[0]} to {counts[-1]}"
            )
        return float(np.exp(np.interp(count, counts, log_prices)))

    @cached_property
    def _price_list(self) -> tuple[list[int], list[float]]:
        """Return numbers of computed steps, rising, and the logarithm of the price of each."""
        positive = self._costs[np.isfinite(self._costs) & (self._costs > 0)]
        highest, lowest = math.log(positive.sum()), math.log(positive.min())
        by_count: dict[int, list[float]] = {}
        for log_price in np.linspace(highest, lowest, 160):
            count = len(self.schedule(math.exp(log_price)))
            by_count.setdefault(count, []).append(float(log_price))
        counts = sorted(by_count)
        return counts, [float(np.mean(by_count[count])) for count in counts]

    @cached_property
    def _costs(self) -> Array:
        """Return the costs: float64 [step, gap before it, gap after it - 1].

        The cost of an interval beyond the last step is infinite.
        """
        last, longest = self.num_steps, self._longest
        costs = np.full((last + 1, longest + 1, longest), np.inf)
        for step in range(1, last):
            for before in range(longest + 1):
                # A gap that begins before step 1 counts as no earlier residual.
                earlier = [step - before] if 0 < before < step and self._order else []
                reach = min(longest, last - step)
                missed = self._missed([step, *earlier], reach)
                costs[step, before, :reach] = missed * self._sensitivity[step : step + reach]
        return costs

    def _missed(self, history: list[int], reach: int) -> Array:
        """Return ||sum_j (R_j - F(j))||^2 for the gaps 1 to `reach` after history[0]: [reach]."""
        known = [s - 1 for s in history]
        targets = list(range(history[0], history[0] + reach - 1))
        if not targets:
            return np.zeros(reach)
        fits = np.stack([fit(self._gram, known, target) for target in targets])
        errors = np.concatenate([-fits, np.eye(len(targets))], axis=1).cumsum(axis=0)
        inside = [*known, *targets]
        products = self._gram[np.ix_(inside, inside)]
        return np.concatenate([[0.0], np.einsum("ij,jk,ik->i", errors, products, errors)])
