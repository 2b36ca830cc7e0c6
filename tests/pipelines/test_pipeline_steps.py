"""Test steps of pipelines that call the model other than once or twice for each timestep."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from tests.support.tiny_pipelines.all_pipelines import PIPELINES
from tests.support.tiny_pipelines.checks import (
    ALWAYS,
    EVERY_THIRD,
    check_all_steps_are_made,
    check_every_third,
    check_oracle,
    no_user_warning,
)
from tests.support.tiny_pipelines.pipeline import STEPS
from tests.support.tiny_pipelines.schedulers import scheduler

SCHEDULERS = {
    "DDIMScheduler": 6,
    "DPMSolverMultistepScheduler": 6,
    "DPMSolverSinglestepScheduler": 6,
    "DEISMultistepScheduler": 6,
    "UniPCMultistepScheduler": 6,
    "LCMScheduler": 6,
    "EulerDiscreteScheduler": 6,
    "LMSDiscreteScheduler": 6,
    # A scheduler of second order has two steps a timestep, and so has PNDM's first timestep.
    "PNDMScheduler": 7,
    "HeunDiscreteScheduler": 11,
    "KDPM2DiscreteScheduler": 11,
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_step_of_the_scheduler_is_a_step(name: str) -> None:
    tiny = PIPELINES["latte"]
    pipe = tiny.build()
    settings = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    pipe.scheduler = scheduler(name, **settings)
    plain = tiny.run(pipe)
    ak.patch(pipe, codebook=ALWAYS)
    with no_user_warning():
        assert torch.equal(tiny.run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_user_warning():
        assert not torch.equal(tiny.run(pipe), plain)
    check_every_third(pipe, SCHEDULERS[name])


def test_a_second_order_has_two_calls_with_guidance_in_each_step() -> None:
    tiny = PIPELINES["wan"]
    pipe = tiny.build()
    pipe.scheduler = scheduler("FlowMatchHeunDiscreteScheduler")
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_user_warning():
        tiny.run(pipe)
    check_every_third(pipe, 11)
    assert list(ak.summary(pipe).branches) == ["cond", "uncond"]


def test_the_users_timesteps_and_sigmas() -> None:
    for name, given in (
        ("latte", {"timesteps": [900, 700, 500, 300, 200, 100, 50]}),
        ("sd3", {"sigmas": [1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1]}),
        ("qwen", {"sigmas": [1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1]}),
    ):
        tiny = PIPELINES[name]
        pipe = tiny.build()
        if name == "latte":
            pipe.scheduler = scheduler("DDPMScheduler")
        ak.patch(pipe, codebook=EVERY_THIRD)
        with no_user_warning():
            tiny.run(pipe, **given)
            check_every_third(pipe, 7)
            tiny.run(pipe)
            check_every_third(pipe, STEPS)


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
def test_a_part_of_the_steps(strength: float) -> None:
    tiny = PIPELINES["wan, video given"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_user_warning():
        tiny.run(pipe, num_inference_steps=12, strength=strength)
    check_every_third(pipe, int(12 * strength))


FORCING = PIPELINES["skyreels, diffusion forcing"]


def test_frames_that_are_denoised_one_after_the_other() -> None:
    """There are more steps than timesteps; the step clock has their number from the pipeline."""
    pipe = FORCING.build()
    seen = []
    pipe.transformer.register_forward_pre_hook(lambda *_: seen.append(1))
    FORCING.run(pipe, guidance=False, ar_step=2, causal_block_size=1)
    steps = len(seen)
    assert steps > STEPS
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_user_warning():
        FORCING.run(pipe, ar_step=2, causal_block_size=1)
    check_all_steps_are_made(pipe, steps)
    assert list(ak.summary(pipe).branches) == ["cond", "uncond"]


def test_each_window_of_a_long_video_is_a_generation() -> None:
    long = {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5, "addnoise_condition": 0}
    pipe = ak.patch(FORCING.build(), codebook=EVERY_THIRD)
    with no_user_warning():
        latents = FORCING.run(pipe, **long)
    check_every_third(pipe, STEPS)
    check_oracle(pipe, latents, partial(FORCING.run, pipe, **long))


def test_frames_that_are_dropped_during_a_run() -> None:
    """A residual of the longer sequence is never added to the shorter one."""
    tiny = PIPELINES["chronoedit"]
    reasoning = {"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 3}
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_user_warning():
        latents = tiny.run(pipe, **reasoning)
    summary = ak.summary(pipe)
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 4, 5, 6], [3])
    assert torch.equal(tiny.run(pipe, **reasoning), latents)


def test_guidance_that_ends_during_a_run() -> None:
    """Guidance ends in two ways: a branch is no longer called, or the batch gets smaller."""
    tiny = PIPELINES["lumina2"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_user_warning():
        latents = tiny.run(pipe, cfg_trunc_ratio=0.5)
    check_every_third(pipe, STEPS)
    assert list(ak.summary(pipe).branches) == ["0", "1"]
    check_oracle(pipe, latents, partial(tiny.run, pipe, cfg_trunc_ratio=0.5))

    tiny = PIPELINES["z-image"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    whole = tiny.run(pipe)
    with no_user_warning():
        latents = tiny.run(pipe, cfg_truncation=0.5)
    check_all_steps_are_made(pipe, STEPS)
    assert torch.equal(tiny.run(pipe), whole) and not torch.equal(latents, whole)


def test_guidance_that_begins_during_a_run() -> None:
    """The unconditional branch has nothing to reuse at its first step."""
    tiny = PIPELINES["hunyuan15"]
    pipe = tiny.build()
    pipe.guider._start, pipe.guider._stop = 0.34, 0.9
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_user_warning():
        latents = tiny.run(pipe)
    summary = ak.summary(pipe)
    assert list(summary.branches) == ["pred_cond", "pred_uncond"]
    assert summary.recomputed == {"pred_uncond": [3]}
    check_oracle(pipe, latents, partial(tiny.run, pipe))


@pytest.mark.parametrize("layers", [[0], [1], [2], [0, 2]])
def test_a_pass_that_skips_layers(layers: list[int]) -> None:
    """Skipping an inner layer keeps reuse possible; skipping the first or last one does not."""
    tiny = PIPELINES["sd3, skipped layers"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    run = partial(tiny.run, pipe, skip_guidance_layers=layers)
    if layers == [1]:
        with no_user_warning():
            latents = run()
        return check_oracle(pipe, latents, run)
    with pytest.warns(ak.AdaCacheWarning, match="skip_layers"):
        latents = run()
    check_every_third(pipe, STEPS)
    assert ak.summary(pipe).recomputed == {"1": [3, 4]}
    check_oracle(pipe, latents, run, always=(1,))


def test_a_run_that_the_user_interrupts() -> None:
    tiny = PIPELINES["flux"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    whole = tiny.run(pipe)

    def interrupt(pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= 2
        return values

    tiny.run(pipe, callback_on_step_end=interrupt)
    assert len(ak.summary(pipe).computed_steps) == 2
    assert torch.equal(tiny.run(pipe), whole)
