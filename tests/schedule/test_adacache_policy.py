"""The policy of AdaCache against a second implementation of the paper's rule."""

from __future__ import annotations

import random

import pytest

from adacache_kernels.schedule import AdaCachePolicy, Decision
from adacache_kernels.schedule.codebook import parse_codebook

FAST_30 = {0.08: 6, 0.16: 5, 0.24: 4, 0.32: 3, 0.40: 2, 1.00: 1}


def paper_schedule(distances: list[float], codebook: dict[float, int]) -> list[int]:
    """Return the computed steps of the released code: 1, N-1, N, and the steps that rates give."""
    thresholds, rates = list(codebook), list(codebook.values())
    rate, last, computed = 1, 0, []
    for step in range(1, len(distances) + 1):
        if step != last + rate and step not in (1, len(distances) - 1, len(distances)):
            continue
        if computed:
            below = [r for t, r in zip(thresholds, rates, strict=True) if distances[step - 1] < t]
            rate = below[0] if below else rates[-1]
        last = step
        computed.append(step)
    return computed


def policy_schedule(distances: list[float], codebook: dict[float, int]) -> list[int]:
    """Return the computed steps of the policy, with the decisions of a codebook."""
    policy, parsed = AdaCachePolicy(len(distances)), parse_codebook(codebook)
    last: Decision | None = None
    computed = []
    for step, distance in enumerate(distances, start=1):
        if not policy.compute(step, last):
            continue
        rate = parsed.rate(distance) if computed else 1
        last = Decision(step, rate, distance, distance, 1.0)
        computed.append(step)
    return computed


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 30, 50, 100])
@pytest.mark.parametrize("seed", range(8))
def test_policy_is_the_paper(num_steps: int, seed: int) -> None:
    draw = random.Random(seed)
    distances = [draw.uniform(0.0, 0.5) for _ in range(num_steps)]
    assert policy_schedule(distances, FAST_30) == paper_schedule(distances, FAST_30)


def test_the_first_and_the_last_two_steps_are_computed() -> None:
    assert policy_schedule([0.0] * 20, {1.0: 50}) == [1, 2, 19, 20]


def test_warmup() -> None:
    policy = AdaCachePolicy(20, warmup_steps=5)
    last = Decision(1, 18, 0.0, 0.0, 1.0)
    assert [step for step in range(1, 21) if policy.compute(step, last)] == [1, 2, 3, 4, 5, 19, 20]


def test_nothing_is_reusable_in_short_generations() -> None:
    assert [AdaCachePolicy(n).most_reusable_steps for n in (1, 2, 3, 4, 5, 50)] == [
        0, 0, 0, 0, 1, 46,
    ]  # fmt: skip


@pytest.mark.parametrize("warmup", [1, 2, 5])
@pytest.mark.parametrize("num_steps", [1, 4, 5, 9, 30])
def test_residuals_are_recorded_where_a_reused_step_may_follow(num_steps: int, warmup: int) -> None:
    """A step is recorded if the schedule of the highest rate reuses the step after it."""
    policy = AdaCachePolicy(num_steps, warmup)
    always = Decision(2, num_steps, 0.0, 0.0, 1.0)
    reused = [s for s in range(3, num_steps + 1) if not policy.compute(s, always)]
    assert [s + 1 for s in range(1, num_steps + 1) if policy.may_reuse_after(s)] == reused
    assert policy.most_reusable_steps == len(reused)
    assert policy.last_reusable_step == max(reused, default=0)
