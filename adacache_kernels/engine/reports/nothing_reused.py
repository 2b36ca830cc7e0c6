"""The reasons why a generation can reuse nothing, or has reused nothing."""

from __future__ import annotations

import math

from ...config.adacache_config import AdaCacheConfig
from ...schedule import Policy, ProfilePolicy
from ...schedule.adacache import PROTECTED_LAST_STEPS
from ...schedule.codebook import Codebook
from .summary import History

LONGEST_SEARCH = 200
"""Step counts that are tried for the fewest steps with a reuse."""


def reuse_is_off(config: AdaCacheConfig, policy: Policy, codebook: Codebook) -> str | None:
    """Return the reason why the settings ask for no reuse, or None if they do not."""
    if config.schedule is not None:
        return None if policy.most_reusable_steps else "schedule= lists every step"
    if config.max_continuous_cached_steps == 0:
        return "max_continuous_cached_steps=0 lets no step be reused"
    has_own = config.decides_by_codebook and not isinstance(config.codebook, str)
    return "the codebook has no rate above 1" if has_own and max(codebook.rates) == 1 else None


def too_few_steps(config: AdaCacheConfig, policy: Policy, num_steps: int) -> str | None:
    """Return the reason why a generation of so few steps can reuse none of them.

    Returns:
        None if a step can be reused, if the settings ask for no reuse, or if the number of steps
        is not known.
    """
    codebook = config.codebook_for(num_steps)
    if num_steps <= 0 or reuse_is_off(config, policy, codebook) or config.schedule is not None:
        return None
    why = []
    if policy.most_reusable_steps == 0:
        why.append(_always_computed(config))
    if config.decides_by_codebook and max(codebook.rates) == 1:
        why.append(f'codebook="{config.codebook}" has only the rate 1 for {num_steps} steps')
    if not why:
        return None
    return (
        f"no step of {num_steps} can be reused: {', and '.join(why)}; every step is computed"
        f"{_from_how_many(config)}"
    )


def _first_computed(config: AdaCacheConfig) -> int:
    """Return the number of first steps that are always computed."""
    # With a codebook, the distance that allows a reuse is measured in step 2 at the earliest.
    return max(2 if config.decides_by_codebook else 1, config.max_warmup_steps)


def _always_computed(config: AdaCacheConfig) -> str:
    first = _first_computed(config)
    setting = f" (max_warmup_steps={first})" if first == config.max_warmup_steps else ""
    last = PROTECTED_LAST_STEPS
    return f"the first {first}{setting} and the last {last} steps are always computed"


def _from_how_many(config: AdaCacheConfig) -> str:
    """Return the advice to run more steps; "" for a profile, which fixes their number."""
    if not config.decides_by_codebook:
        return ""
    fewest = _first_computed(config) + 1 + PROTECTED_LAST_STEPS
    for steps in range(fewest, fewest + LONGEST_SEARCH):
        if max(config.codebook_for(steps).rates) > 1:
            return f"; these settings can reuse a step from {steps} steps on"
    return ""


def profile_never_engaged(history: History, config: AdaCacheConfig, policy: Policy) -> str | None:
    """Return the reason why a profile has reused no step, or None if that is not the reason."""
    if history.reused or not isinstance(policy, ProfilePolicy) or not policy.most_reusable_steps:
        return None
    return (
        f"no step of {history.num_steps} was reused: the plan of the profile has "
        f"{config.computed_steps:g} computed steps on average, and the forecast errors of this "
        f"video are {math.exp(policy.log_ratio):.3g} times the calibrated ones"
    )


def never_engaged(history: History, codebook: Codebook, policy: Policy) -> str | None:
    """Return the reason why a codebook has reused no step, or None if that is not the reason.

    Args:
        history: the steps of a generation that has ended.
        codebook: the codebook of the generation.
        policy: the policy of the generation.
    """
    distances = [
        decision.distance
        for step, decision in history.decisions.items()
        if decision.distance is not None and policy.may_reuse_after(step)
    ]
    thresholds = [threshold for threshold, rate in codebook if rate > 1]
    if history.reused or not distances or not thresholds or min(distances) < max(thresholds):
        return None
    return (
        f"no step of {history.num_steps} was reused: the smallest distance was "
        f"{min(distances):.3g}, and the codebook reuses below {max(thresholds):.3g}; a codebook "
        f"with a threshold of {_rounded_up(min(distances))} reuses steps, at the cost of quality"
    )


def _rounded_up(value: float) -> str:
    """Return a number above `value` with two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{(math.floor(value / unit) + 1) * unit:.2g}"
