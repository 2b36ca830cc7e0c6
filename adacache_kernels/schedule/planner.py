"""The plan: which steps to compute, from what was recorded in calibration runs.

The video's error is, to a good approximation, a sum over the intervals between computed steps: what
the forecasts of an interval miss adds up until the next computed step t sees it, and then counts by
how sensitive the video is to an error there.

    cost(t0, t1, t) = sensitivity(t) * ||sum_j (R_j - forecast(j))||^2       t1 < j < t

with forecasts from the computed steps t1 and t0 before it. The plan for a price is the schedule
with the lowest sum of costs plus price times the number of computed steps: dynamic programming over
pairs of computed steps.
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
# The longest interval as a part of the generation: 14 of 50 steps. In the demo's plans the longest
# is 12 of 50, at 9 computed steps.
LONGEST = 0.28
# Prices are rounded to 1 / 32 of a factor of two, so that few plans are made. A step more or less
# is worth about a third of one.
LEVELS = 32


class Plan:
    """Schedules for a model, a scheduler and a number of steps.

    Args:
        gram: inner products of the residuals, [steps, steps].
        sensitivity: squared error of the video per squared error seen at each step, [steps].
        order: of the forecast; costs of order 2 are taken as those of order 1.
    """

    def __init__(self, gram: Array, sensitivity: Array, order: int) -> None:
        self.num_steps = len(gram)
        self._gram = gram
        self._sensitivity = sensitivity
        self._order = min(order, 1)
        self._longest = max(2, math.ceil(LONGEST * self.num_steps))
        self._gaps_by_level: dict[int, NDArray[np.int64]] = {}

    def schedule(self, price: float) -> list[int]:
        """Computed steps, counted from 1, of the best schedule at a price."""
        gaps = self.gaps(price)
        steps, gap = [1], 0
        while steps[-1] < self.num_steps:
            gap = int(gaps[steps[-1], gap])
            steps.append(steps[-1] + gap)
        return steps

    def gaps(self, price: float) -> NDArray[np.int64]:
        """[step, gap before it] -> gap to the next computed step; gap 0: it was the first one."""
        longest, last = self._longest, self.num_steps
        best = np.zeros((last + longest + 1, longest + 1), dtype=np.int64)
        value = np.full((last + longest + 1, longest + 1), np.inf)
        value[last] = 0.0
        following = np.arange(1, longest + 1)
        for step in range(last - 1, 0, -1):
            # From (step, before) by `gap` to (step + gap, gap).
            total = self._costs[step] + price + value[step + following, following]
            # The last two steps are computed, as in the paper: they decide the fine detail. To
            # reuse the last but one cost the demo's still videos 4 dB at 17 of 50 computed steps.
            if step < last - 1:
                total[:, last - step - 1 :] = np.inf
            best[step] = 1 + total.argmin(axis=1)
            value[step] = total.min(axis=1)
        return best

    def gap(self, price: float, step: int, before: int) -> int:
        """Gap to the next computed step, after `step`, which came `before` steps after another."""
        level = round(LEVELS * math.log2(price))
        if level not in self._gaps_by_level:
            self._gaps_by_level[level] = self.gaps(2 ** (level / LEVELS))
        return int(self._gaps_by_level[level][step, min(before, self._longest)])

    def intervals(self, steps: Sequence[int]) -> list[tuple[int, float]]:
        """Of each interval of a schedule the step that ends it, and its cost."""
        found, before = [], 0
        for step, following in itertools.pairwise(steps):
            gap = following - step
            # What is longer than a plan has it costs at least as much as its longest.
            costs = self._costs[step, min(before, self._longest)]
            found.append((following, float(costs[min(gap, self._longest) - 1])))
            before = gap
        return found

    @property
    def fewest(self) -> int:
        """Computed steps of the cheapest schedule."""
        return self._price_list[0][0]

    @property
    def most(self) -> int:
        """Computed steps of the schedule at the lowest price."""
        return self._price_list[0][-1]

    def price_for(self, count: float) -> float:
        """The price at which about `count` steps are computed.

        Schedules jump by whole steps where prices do not: in between, the logarithm of the price is
        interpolated.

        Raises:
            ValueError: more steps than there are, or fewer than any schedule computes.
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
        """[step, gap before it, gap - 1 after it], infinite where that leaves the generation."""
        last, longest = self.num_steps, self._longest
        costs = np.full((last + 1, longest + 1, longest), np.inf)
        for step in range(1, last):
            for before in range(longest + 1):
                # Longer gaps than the generation so far: as if there were no earlier residual.
                earlier = [step - before] if 0 < before < step and self._order else []
                reach = min(longest, last - step)
                missed = self._missed([step, *earlier], reach)
                costs[step, before, :reach] = missed * self._sensitivity[step : step + reach]
        return costs

    def _missed(self, history: list[int], reach: int) -> Array:
        """||sum of the errors of the forecasts||^2 for gaps 1 to `reach` after history[0]."""
        known = [s - 1 for s in history]
        targets = list(range(history[0], history[0] + reach - 1))
        if not targets:
            return np.zeros(reach)
        fits = np.stack([fit(self._gram, known, target) for target in targets])
        errors = np.concatenate([-fits, np.eye(len(targets))], axis=1).cumsum(axis=0)
        inside = [*known, *targets]
        products = self._gram[np.ix_(inside, inside)]
        return np.concatenate([[0.0], np.einsum("ij,jk,ik->i", errors, products, errors)])
