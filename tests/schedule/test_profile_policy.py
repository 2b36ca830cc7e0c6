"""The policy of a profile: which errors it expects, and how it adapts to the measured ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

import adacache_kernels as ak
from adacache_kernels.schedule import Decision, ProfilePolicy
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_profile import STEPS


def observe(policy: ProfilePolicy, step: int, last: int, error: float) -> None:
    """Give the policy the decision of a computed step with this forecast error."""
    distance = error / (step - last)
    policy.observe(Decision(step, 1, distance, distance, 1.0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_video_with_the_calibrated_errors_has_a_ratio_of_1(
    tiny_profile: Profile, order: int, seed: int
) -> None:
    """The calibrated error is that of a forecast from the computed steps, the newest first."""
    plan = tiny_profile.plan(order)
    policy = ProfilePolicy(plan, 1.0, lambda *case: tiny_profile.expected_error(order, *case), 1.0)
    policy.observe(Decision(1, 1, None, None, 1.0))
    history = [1]
    for step in sorted(random.Random(seed).sample(range(2, STEPS + 1), 7)):
        error = tiny_profile.expected_error(order, history, step)
        observe(policy, step, history[0], error)
        assert policy.log_ratio == pytest.approx(0, abs=1e-9)
        history = [step, *history]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_generation_asks_for_the_errors_of_its_own_schedule(
    tiny_profile: Profile, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, list[int], int]] = []

    def expected(profile: Profile, order: int, history: Sequence[int], step: int) -> float:
        asked.append((order, [*history], step))
        return 0.1

    monkeypatch.setattr(Profile, "expected_error", expected)
    tiny = TINY["wan"]
    model = ak.patch(
        tiny.build(),
        profile=tiny_profile,
        forecast=order,
        computed_steps=7,
        num_inference_steps=STEPS,
    )
    for _ in range(2):
        asked.clear()
        denoise(tiny, model, STEPS)
        computed = ak.summary(model).computed_steps
        assert len(asked) >= 3
        for index, case in enumerate(asked, start=1):
            assert case == (order, computed[:index][::-1], computed[index])


@pytest.mark.parametrize("warmup", [1, 2, 5, STEPS - 2, STEPS - 1, STEPS])
def test_steps_between_the_warmup_and_the_last_two_may_be_reused(
    tiny_profile: Profile, warmup: int
) -> None:
    policy = ProfilePolicy(tiny_profile.plan(1), 1.0, lambda *_: 0.1, 1.0, warmup)
    reusable = [step for step in range(2, STEPS + 1) if policy.may_reuse_after(step - 1)]
    assert reusable == list(range(warmup + 1, STEPS - 1))
    assert policy.most_reusable_steps == len(reusable)
