"""Test patched pipelines: steps, guidance in one call and in two, interruptions, forecasts."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from adacache_kernels.engine.evidence import call_evidence
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.checks import (
    ALWAYS,
    EVERY_THIRD,
    check_every_third,
    every_third,
    interrupt,
)
from tests.support.tiny_pipelines.latte_and_wan import STEPS, latte, run_latte, run_wan, wan

RUN = {"latte": (latte, run_latte), "wan": (wan, run_wan)}
BOTH = pytest.mark.parametrize(("build", "run"), RUN.values(), ids=RUN)


@BOTH
def test_rate_1_is_bit_equal_and_unpatch_gives_the_pipeline_back(build: Any, run: Any) -> None:
    pipe = build()
    plain = run(pipe)
    scheduler, transformer = set(vars(pipe.scheduler)), set(vars(pipe.transformer))
    ak.patch(pipe, codebook=ALWAYS)
    assert torch.equal(run(pipe), plain)
    assert ak.summary(pipe).computed_steps == list(range(1, STEPS + 1))
    ak.unpatch(pipe)
    assert torch.equal(run(pipe), plain)
    assert "step" not in vars(pipe.scheduler) and "set_timesteps" not in vars(pipe.scheduler)
    assert set(vars(pipe.scheduler)) == scheduler
    assert set(vars(pipe.transformer)) == transformer


@BOTH
def test_the_number_of_steps_is_the_schedulers(build: Any, run: Any) -> None:
    pipe = ak.patch(build(), codebook=EVERY_THIRD)
    for steps in (STEPS, 11, 5):
        run(pipe, steps)
        check_every_third(pipe, steps)


def test_guidance_in_one_call_is_one_branch() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    run_latte(pipe)
    summary = ak.summary(pipe)
    assert summary.branches == ["0"]
    assert summary.cache_tensors == 2


def test_guidance_in_two_calls_is_two_branches_and_one_decision() -> None:
    pipe = ak.patch(wan(), codebook=EVERY_THIRD)
    run_wan(pipe)
    summary = ak.summary(pipe)
    assert summary.branches == ["cond", "uncond"]
    assert summary.cache_tensors == 3
    run_wan(pipe, guidance=1.0)
    summary = ak.summary(pipe)
    assert summary.branches == ["cond"]
    assert summary.cache_tensors == 2


def test_guidance_in_two_calls_equals_two_models_reusing_for_themselves() -> None:
    """The unconditional branch must add its own residual, not the conditional one's."""
    pipe = ak.patch(wan(), codebook=EVERY_THIRD)
    together = run_wan(pipe)
    ak.unpatch(pipe)
    transformer = pipe.transformer
    ak.patch(transformer, codebook=EVERY_THIRD, num_inference_steps=STEPS, calls_per_step=2)
    # Without Wan's own `cache_context`, no branch has a name.
    vars(transformer)["cache_context"] = lambda *_args, **_kwargs: nullcontext()
    assert torch.equal(run_wan(pipe), together)


def test_a_run_that_was_broken_off_does_not_leak_into_the_next() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    whole = run_latte(pipe)
    interrupt(partial(run_latte, pipe), 3)
    assert len(ak.summary(pipe).computed_steps) == 2
    assert torch.equal(run_latte(pipe), whole)


def test_another_scheduler_after_patch_is_followed() -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    run_latte(pipe)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    run_latte(pipe, 6)
    assert ak.summary(pipe).computed_steps == every_third(6)
    ak.unpatch(pipe)
    assert "step" not in vars(pipe.scheduler)


def loop_without_scheduler(pipe: Any) -> Tensor:
    """Call the transformer of a pipeline without a step of the scheduler."""
    tiny = TINY["latte"]
    pipe.scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for step in range(1, 13):
            prediction = tiny.call(pipe.transformer, tiny.noise(), step)
    return prediction


def test_a_loop_of_the_users_own_is_cached_by_its_timesteps() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    with pytest.warns(ak.AdaCacheWarning, match="num_inference_steps is not known"):
        loop_without_scheduler(pipe)
    summary = ak.summary(pipe)
    assert summary.computed_steps[:3] == [1, 2, 5] and summary.reused_steps[:2] == [3, 4]


def test_a_loop_of_the_users_own_whose_timesteps_cannot_be_read_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_evidence, "readable_time", lambda timestep: None)
    pipe = latte()
    expected = loop_without_scheduler(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    with pytest.warns(ak.AdaCacheWarning, match="one step had several calls"):
        found = loop_without_scheduler(pipe)
    assert torch.equal(found, expected)


def test_the_transformer_of_a_patched_pipeline_is_patched() -> None:
    pipe = ak.patch(latte())
    assert ak.is_patched(pipe) and ak.is_patched(pipe.transformer)
    with pytest.raises(ValueError, match="patched already"):
        ak.patch(pipe.transformer, num_inference_steps=3)
    ak.unpatch(pipe.transformer)
    assert not ak.is_patched(pipe)
    assert "step" not in vars(pipe.scheduler)


def test_a_failed_patch_leaves_the_pipeline_alone() -> None:
    pipe = latte()
    with pytest.raises(ValueError, match="cache_loc=7"):
        ak.patch(pipe, cache_loc=7)
    assert not ak.is_patched(pipe)
    assert "step" not in vars(pipe.scheduler)
    assert "forward" not in vars(pipe.transformer)


def test_one_step_and_two_steps() -> None:
    pipe = latte()
    for steps in (1, 2, 3):
        plain = run_latte(pipe, steps)
        ak.patch(pipe, codebook=EVERY_THIRD)
        assert torch.equal(run_latte(pipe, steps), plain)
        assert ak.summary(pipe).computed_steps == list(range(1, steps + 1))
        ak.unpatch(pipe)


def test_another_number_of_steps_than_set_is_warned_about() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD, num_inference_steps=20)
    with pytest.warns(ak.AdaCacheWarning, match="num_inference_steps=20, but the scheduler runs 8"):
        run_latte(pipe)
    assert ak.summary(pipe).num_steps == STEPS


def test_calls_per_step_is_refused_on_a_pipeline() -> None:
    with pytest.raises(ValueError, match="calls_per_step=2"):
        ak.patch(latte(), calls_per_step=2)


@BOTH
def test_a_forecast_with_a_changing_number_of_steps(build: Any, run: Any) -> None:
    """Every generation equals that of a newly patched pipeline."""
    settings: dict[str, Any] = dict(
        forecast=1, correct=True, measure="forecast-error", codebook=EVERY_THIRD
    )
    used = ak.patch(build(), **settings)
    for steps in (8, 12, 6, 8):
        latents = run(used, steps)
        summary = ak.summary(used)
        assert summary.num_steps == steps
        assert summary.reused_steps
        fresh = ak.patch(build(), **settings)
        assert close(latents, run(fresh, steps))
        ak.unpatch(fresh)


def test_the_schedulers_time_sets_the_forecast() -> None:
    """Trailing timesteps are evenly spaced: their forecast is that of steps, up to rounding."""
    latents = {}
    for time in ("step", "timestep", "sigma"):
        pipe = ak.patch(latte(), forecast=1, forecast_time=time, schedule=[1, 2, 5, 8, 10])
        latents[time] = run_latte(pipe, 10)
    assert torch.allclose(latents["step"], latents["timestep"], atol=1e-5)
    assert not torch.allclose(latents["step"], latents["sigma"], atol=1e-4)
