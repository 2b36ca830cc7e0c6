"""The policy of a schedule that is fixed in advance."""

from __future__ import annotations

import pytest

from adacache_kernels.schedule import FixedPolicy


@pytest.mark.parametrize(
    ("num_steps", "steps", "reused"),
    [
        (6, [1, 2, 4, 6], [3, 5]),
        (6, [2, 6], [3, 4, 5]),
        (6, [1, 2, 3], [4, 5, 6]),
        (3, [1, 2, 3], []),
        (1, [], []),
    ],
)
def test_all_steps_but_the_given_ones_and_the_first_are_reused(
    num_steps: int, steps: list[int], reused: list[int]
) -> None:
    policy = FixedPolicy(num_steps, steps)
    every = range(1, num_steps + 1)
    assert [step for step in every if not policy.compute(step, None)] == reused
    assert [step + 1 for step in every if policy.may_reuse_after(step)] == reused
    assert policy.last_reusable_step == max(reused, default=0)
    assert policy.most_reusable_steps == len(reused)


def test_a_step_after_the_last_one_is_refused() -> None:
    FixedPolicy(6, [6])
    with pytest.raises(ValueError, match="computes step 7, but the generation has 6"):
        FixedPolicy(6, [3, 7])
