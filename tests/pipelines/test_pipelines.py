"""diffusers pipelines around tiny transformers: steps, guidance in one call and in two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY

STEPS = 8
ALWAYS = {1.0: 1}
EVERY_THIRD = {float("inf"): 3}
# LattePipeline drops the half of the channels that predicts the variance.
LATTE_WITH_VARIANCE = replace(TINY["latte"], config=dict(TINY["latte"].config, out_channels=8))


def latte() -> Any:
    from diffusers import DDIMScheduler, LattePipeline

    scheduler = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    return quiet(
        LattePipeline(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            transformer=LATTE_WITH_VARIANCE.build(),
            scheduler=scheduler,
        )
    )


def wan() -> Any:
    from diffusers import UniPCMultistepScheduler, WanPipeline

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return quiet(
        WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            transformer=TINY["wan"].build(),
            scheduler=scheduler,
        )
    )


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run_latte(pipe: Any, steps: int = STEPS, **kwargs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    text = {"prompt_embeds": embeds(8, 1), "negative_prompt_embeds": embeds(8, 2)}
    sizes = {"video_length": 4, "height": 64, "width": 64}
    return pipe(
        prompt=None,
        negative_prompt=None,
        num_inference_steps=steps,
        guidance_scale=4.0,
        output_type="latent",
        generator=generator,
        **text,
        **sizes,
        **kwargs,
    ).frames


def run_wan(pipe: Any, steps: int = STEPS, guidance: float = 4.0, **kwargs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    text = {"prompt_embeds": embeds(16, 1), "negative_prompt_embeds": embeds(16, 2)}
    return pipe(
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        generator=generator,
        height=64,
        width=64,
        num_frames=9,
        **text,
        **kwargs,
    ).frames


def embeds(channels: int, seed: int) -> Tensor:
    return torch.randn(1, 6, channels, generator=torch.Generator().manual_seed(seed))


PIPELINES = [(latte, run_latte), (wan, run_wan)]


@pytest.mark.parametrize(("build", "run"), PIPELINES)
def test_rate_1_is_bit_equal_and_unpatch_gives_the_pipeline_back(build: Any, run: Any) -> None:
    pipe = build()
    plain, scheduler, transformer = (
        run(pipe),
        set(vars(pipe.scheduler)),
        set(vars(pipe.transformer)),
    )
    ak.patch(pipe, codebook=ALWAYS)
    assert torch.equal(run(pipe), plain)
    assert ak.summary(pipe).computed_steps == list(range(1, STEPS + 1))
    ak.unpatch(pipe)
    assert torch.equal(run(pipe), plain)
    assert "step" not in vars(pipe.scheduler) and "set_timesteps" not in vars(pipe.scheduler)
    assert set(vars(pipe.scheduler)) == scheduler
    assert set(vars(pipe.transformer)) == transformer


@pytest.mark.parametrize(("build", "run"), PIPELINES)
def test_the_scheduler_tells_the_number_of_steps(build: Any, run: Any) -> None:
    pipe = ak.patch(build(), codebook=EVERY_THIRD)
    for steps in (STEPS, 11, 5):
        run(pipe, steps)
        summary = ak.summary(pipe)
        expected = sorted({1, *range(2, steps, 3), steps - 1, steps})
        assert summary.num_steps == steps
        assert summary.computed_steps == expected


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
    by_order = run_wan_without_names(pipe)
    assert torch.equal(together, by_order)


def run_wan_without_names(pipe: Any) -> Tensor:
    """A pipeline that names no branch: Wan's own `cache_context` is taken away."""
    from contextlib import nullcontext

    vars(pipe.transformer)["cache_context"] = lambda *_args, **_kwargs: nullcontext()
    return run_wan(pipe)


def test_a_run_that_was_broken_off_does_not_leak_into_the_next() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    whole = run_latte(pipe)

    def stop(_pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 3:
            raise KeyboardInterrupt
        return values

    with pytest.raises(KeyboardInterrupt):
        run_latte(pipe, callback_on_step_end=stop)
    assert len(ak.summary(pipe).computed_steps) == 2
    assert torch.equal(run_latte(pipe), whole)


def test_another_scheduler_after_patch_is_followed() -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    run_latte(pipe)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    run_latte(pipe, 6)
    assert ak.summary(pipe).computed_steps == [1, 2, 5, 6]
    ak.unpatch(pipe)
    assert "step" not in vars(pipe.scheduler)


def test_a_loop_of_the_users_own_is_told_and_computed() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    tiny = TINY["latte"]
    pipe.scheduler.set_timesteps(STEPS)
    warned = pytest.warns(ak.AdaCacheWarning, match="scheduler's steps cannot be assigned")
    with warned, torch.no_grad():
        for step in range(1, 13):
            found = tiny.call(pipe.transformer, tiny.noise(), step)
    ak.unpatch(pipe)
    with torch.no_grad():
        assert torch.equal(found, tiny.call(pipe.transformer, tiny.noise(), 12))


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


def test_another_number_of_steps_than_set_is_told() -> None:
    pipe = ak.patch(latte(), codebook=EVERY_THIRD, num_inference_steps=20)
    with pytest.warns(ak.AdaCacheWarning, match="num_inference_steps=20, but the scheduler runs 8"):
        run_latte(pipe)
    assert ak.summary(pipe).num_steps == STEPS


def test_calls_per_step_has_no_place_on_a_pipeline() -> None:
    with pytest.raises(ValueError, match="calls_per_step=2"):
        ak.patch(latte(), calls_per_step=2)


@pytest.mark.parametrize("make", ["latte", "wan"])
def test_a_forecast_with_a_changing_number_of_steps(make: str) -> None:
    """Every generation is as on a freshly patched pipeline."""
    build, run = (latte, run_latte) if make == "latte" else (wan, run_wan)
    settings: dict[str, Any] = dict(
        forecast=1, correct=True, measure="forecast-error", codebook=EVERY_THIRD
    )
    used = ak.patch(build(), **settings)
    for steps in (8, 12, 6, 8):
        found = run(used, steps)
        summary = ak.summary(used)
        assert summary.num_steps == steps
        assert summary.reused_steps
        fresh = ak.patch(build(), **settings)
        assert close(found, run(fresh, steps))
        ak.unpatch(fresh)


def test_the_schedulers_time_sets_the_forecast() -> None:
    """Trailing timesteps are evenly spaced: the same forecast as by steps, up to rounding."""
    found = {}
    for time in ("step", "timestep", "sigma"):
        pipe = ak.patch(latte(), forecast=1, forecast_time=time, schedule=[1, 2, 5, 8, 10])
        found[time] = run_latte(pipe, 10)
    assert torch.allclose(found["step"], found["timestep"], atol=1e-5)
    assert not torch.allclose(found["step"], found["sigma"], atol=1e-4)
