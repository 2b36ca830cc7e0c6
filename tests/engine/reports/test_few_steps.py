"""Generations that reuse nothing: the reason in figures. Advice is followed and helps."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels.engine.reports.nothing_reused import never_engaged
from adacache_kernels.engine.reports.summary import History
from adacache_kernels.schedule import AdaCachePolicy, Decision
from adacache_kernels.schedule.codebook import Codebook
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_pipelines.checks import no_user_warning
from tests.support.tiny_pipelines.latte_and_wan import run_wan, wan

WAN = TINY["wan"]
EAGER = {"codebook": {1e9: 3}}

CASES: list[tuple[dict[str, Any], int, str]] = [
    ({"config": "fast"}, 4, r'first 2 and the last 2 .*codebook="fast" has only the rate 1 for 4'),
    ({"config": "fast"}, 9, r'codebook="fast" has only the rate 1 for 9 steps'),
    ({"config": "slow"}, 16, r'codebook="slow" has only the rate 1 for 16 steps'),
    ({"config": "slow"}, 19, r'codebook="slow" has only the rate 1 for 19 steps'),
    ({"config": "forecast"}, 4, r"the first 2 and the last 2 steps are always computed"),
    (EAGER, 1, r"the first 2 and the last 2 steps are always computed"),
    ({**EAGER, "max_warmup_steps": 6}, 8, r"the first 6 \(max_warmup_steps=6\) and the last 2"),
    ({**EAGER, "batch": "each"}, 3, r"the first 2 and the last 2 steps"),
    ({**EAGER, "decide_for": "branch"}, 2, r"the first 2 and the last 2 steps"),
]


def patched(steps: int, settings: dict[str, Any]) -> nn.Module:
    return ak.patch(WAN.build(), num_inference_steps=steps, **settings)


def run_step(model: nn.Module, step: int) -> None:
    with torch.no_grad():
        WAN.call(model, WAN.noise(), step)


@pytest.mark.parametrize(("settings", "steps", "why"), CASES)
def test_too_few_steps_are_said_at_the_first_call(
    settings: dict[str, Any], steps: int, why: str
) -> None:
    model = patched(steps, settings)
    match = rf"no step of {steps} can be reused: .*{why}.*every step is computed"
    with pytest.warns(ak.AdaCacheWarning, match=match) as warned:
        run_step(model, 1)
    assert len(warned) == 1
    for step in range(2, steps + 1):
        run_step(model, step)
    summary = ak.summary(model)
    assert summary.computed_steps == list(range(1, steps + 1)) and len(summary.reasons) == 1
    assert re.search(match, str(summary))


@pytest.mark.parametrize(("settings", "steps", "why"), CASES)
def test_the_advised_number_of_steps_is_the_first_that_can_reuse(
    settings: dict[str, Any], steps: int, why: str
) -> None:
    """The distances are made small enough for every threshold: the latents hardly change."""
    model = patched(steps, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        denoise(WAN, model, 1)
        (reason,) = ak.summary(model).reasons
        (advised,) = map(int, re.findall(r"can reuse a step from (\d+) steps on", reason))
        fewer = patched(advised - 1, settings)
        denoise(WAN, fewer, advised - 1, scale=0.0)
        assert not ak.summary(fewer).reused_steps
    enough = patched(advised, settings)
    with no_user_warning():
        denoise(WAN, enough, advised, scale=0.0)
    assert ak.summary(enough).reused_steps


def test_a_pipeline_says_it_in_each_generation_that_is_too_short() -> None:
    pipe = ak.patch(wan(), "fast")
    with pytest.warns(ak.AdaCacheWarning, match="no step of 8 can be reused"):
        run_wan(pipe, 8)
    run_wan(pipe, 6)
    assert "no step of 6 can be reused" in str(ak.summary(pipe))
    run_wan(pipe, 12)
    assert not any("can be reused" in reason for reason in ak.summary(pipe).reasons)


OFF: list[tuple[dict[str, Any], str]] = [
    ({"codebook": {1e9: 1}}, "the codebook has no rate above 1"),
    ({"schedule": range(1, 9)}, "schedule= lists every step"),
    ({**EAGER, "max_continuous_cached_steps": 0}, "max_continuous_cached_steps=0 lets no step"),
    ({"config": "slow", "max_continuous_cached_steps": 0}, "max_continuous_cached_steps=0 lets no"),
]


@pytest.mark.parametrize(("settings", "reason"), OFF)
def test_settings_that_ask_for_no_reuse_are_a_reason_without_a_warning(
    settings: dict[str, Any], reason: str
) -> None:
    model = patched(8, settings)
    with no_user_warning():
        denoise(WAN, model, 8)
    (found,) = ak.summary(model).reasons
    assert found.startswith(reason) and not ak.summary(model).reused_steps


def test_a_profile_that_reuses_nothing_gives_figures(tiny_profile: Profile) -> None:
    steps = tiny_profile.num_steps
    for computed, match in (
        (steps, rf"no step of {steps} was reused: .*{steps} computed"),
        (6, ""),
    ):
        model = ak.patch(
            WAN.build(),
            profile=tiny_profile,
            computed_steps=computed,
            num_inference_steps=steps,
            max_warmup_steps=1 if computed == 6 else steps - 3,
        )
        warned = pytest.warns(ak.AdaCacheWarning, match=match) if match else no_user_warning()
        with warned:
            denoise(WAN, model, steps)
        summary = ak.summary(model)
        assert bool(summary.reused_steps) is (not match) and len(summary.reasons) == bool(match)


def test_a_baseline_that_reuses_nothing_has_a_reason() -> None:
    nothing = "FirstBlockCacheConfig reused nothing in 8 steps"
    for threshold, reasons in ((1e-9, [nothing]), (9.0, [])):
        config = ak.baselines.FirstBlockCacheConfig(threshold=threshold)
        model = ak.patch(WAN.build(), config, num_inference_steps=8)
        denoise(WAN, model, 8)
        assert ak.summary(model).reasons == reasons


@pytest.mark.parametrize("measure", ["distance", "forecast-error"])
def test_the_advised_threshold_reuses(measure: Any) -> None:
    model = patched(8, {"codebook": {1e-9: 3, 1.0: 1}, "measure": measure})
    with pytest.warns(ak.AdaCacheWarning, match="no step of 8 was reused: the smallest distance"):
        denoise(WAN, model, 8)
    (reason,) = ak.summary(model).reasons
    (threshold,) = map(float, re.findall(r"with a threshold of (\S+) reuses", reason))
    other = patched(8, {"codebook": {threshold: 3, 1e9: 1}, "measure": measure})
    denoise(WAN, other, 8)
    assert ak.summary(other).reused_steps


def test_the_advised_threshold_is_rounded_up_to_two_digits() -> None:
    """Only distances count after which a step may be reused: those of steps 2 and 3 of 6."""
    distances = {1: None, 2: 0.1234, 3: None, 4: 0.05, 5: 0.05, 6: 0.05}
    decisions = {step: Decision(step, 1, d, d, 1.0) for step, d in distances.items()}
    history = History(6, computed=list(distances), decisions=decisions)
    text = never_engaged(history, Codebook((0.01, 1.0), (3, 1)), AdaCachePolicy(6))
    assert text is not None and "the smallest distance was 0.123, " in text
    assert "reuses below 0.01; a codebook with a threshold of 0.13 reuses" in text
