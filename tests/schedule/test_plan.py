"""Plans from a profile, and the policy that follows them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from adacache_kernels.schedule import Decision, FittedForecast, Plan, ProfilePolicy
from tests.support.tiny_profile import STEPS, gram, sensitivity


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(gram(), sensitivity(), 1)


def test_the_cost_of_an_interval_is_the_error_of_its_forecasts(plan: Plan) -> None:
    """The cost equals the summed errors of the forecasts."""
    forecast, products = FittedForecast(1, gram()), gram()
    steps = [1, 2, 5, 8, 12]
    result = dict(plan.intervals(steps))
    for before, start, end in zip(steps, steps[1:], steps[2:], strict=False):
        missed = sum(
            (forecast.error([start, before], j) for j in range(start + 1, end)), np.zeros(STEPS)
        )
        expected = sensitivity()[end - 1] * (missed @ products @ missed)
        assert result[end] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("price", [1e-2, 1.0, 30.0, 1e3])
def test_the_plan_is_the_best_of_all_schedules(plan: Plan, price: float) -> None:
    """Compare with every schedule that computes the last two steps."""
    inner = range(2, STEPS - 1)
    longest = max(2, math.ceil(0.28 * STEPS))
    best = math.inf
    for count in range(len(inner) + 1):
        for chosen in itertools.combinations(inner, count):
            steps = [1, *chosen, STEPS - 1, STEPS]
            if max(b - a for a, b in itertools.pairwise(steps)) <= longest:
                cost = sum(c for _, c in plan.intervals(steps)) + price * len(steps)
                best = min(best, cost)
    steps = plan.schedule(price)
    result = sum(cost for _, cost in plan.intervals(steps)) + price * len(steps)
    assert result == pytest.approx(best, rel=1e-9)


def test_a_higher_price_computes_no_more_steps(plan: Plan) -> None:
    counts = [len(plan.schedule(price)) for price in np.geomspace(1e-4, 1e6, 40)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == STEPS
    assert counts[-1] == plan.fewest


@pytest.mark.parametrize("count", [5, 8, 12])
def test_a_price_for_a_number_of_steps(plan: Plan, count: int) -> None:
    assert abs(len(plan.schedule(plan.price_for(count))) - count) <= 1


@pytest.mark.parametrize("count", [1, 13])
def test_a_number_of_steps_that_no_plan_has(plan: Plan, count: int) -> None:
    message = f"computed_steps is {count};.* {plan.fewest} to {plan.most}$"
    with pytest.raises(ValueError, match=message):
        plan.price_for(count)


def follow(plan: Plan, error: float, adaptivity: float, **settings: Any) -> list[int]:
    """Return the computed steps of a video with `error` times the expected forecast errors."""
    policy = ProfilePolicy(
        plan, plan.price_for(7), lambda history, step: 0.1, adaptivity, **settings
    )
    steps: list[int] = []
    last = None
    for step in range(1, STEPS + 1):
        if not policy.compute(step, last):
            continue
        distance = 0.1 * error / (step - steps[-1]) if steps else None
        steps.append(step)
        last = Decision(step, 1, distance, distance, 1.0)
        policy.observe(last)
    return steps


def test_an_average_video_follows_the_plan(plan: Plan) -> None:
    assert follow(plan, 1.0, 1.0) == follow(plan, 30.0, 0.0)
    assert abs(len(follow(plan, 1.0, 1.0)) - 7) <= 1


def test_a_harder_video_gets_more_steps(plan: Plan) -> None:
    counts = [len(follow(plan, error, 1.0)) for error in (0.01, 1.0, 100.0)]
    assert counts[0] < counts[1] < counts[2]


def test_limits_of_a_plan(plan: Plan) -> None:
    assert follow(plan, 1.0, 1.0, longest=1) == list(range(1, STEPS + 1))
    assert follow(plan, 1.0, 1.0, warmup_steps=5)[:5] == [1, 2, 3, 4, 5]


def test_a_computed_step_follows_an_error_that_is_not_finite(plan: Plan) -> None:
    policy = ProfilePolicy(plan, 1e9, lambda history, step: 0.1, 1.0)
    policy.observe(Decision(1, 1, None, None, 1.0))
    assert not policy.compute(2, Decision(1, 1, None, None, 1.0))
    bad = Decision(4, 1, None, None, 1.0, not_finite=True)
    policy.observe(bad)
    assert policy.compute(5, bad)
