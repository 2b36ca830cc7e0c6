"""Steps of pipelines that do not simply call the model once or twice for each timestep."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.oracles.pipeline_residual import stored_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_pipelines.all_pipelines import PIPELINES, STEPS, scheduler

EVERY_THIRD = {float("inf"): 3}
SCHEDULERS = {
    "DDIMScheduler": 6,
    "DPMSolverMultistepScheduler": 6,
    "DPMSolverSinglestepScheduler": 6,
    "DEISMultistepScheduler": 6,
    "UniPCMultistepScheduler": 6,
    "LCMScheduler": 6,
    "EulerDiscreteScheduler": 6,
    "LMSDiscreteScheduler": 6,
    # The second order takes a step of its own, and so does the first step of Runge and Kutta.
    "PNDMScheduler": 7,
    "HeunDiscreteScheduler": 11,
    "KDPM2DiscreteScheduler": 11,
}


@contextmanager
def no_warning() -> Iterator[None]:
    """Of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        yield


def schedule(steps: int) -> list[int]:
    """Every third step, and the first two and the last two."""
    return sorted({1, *range(2, steps, 3), steps - 1, steps})


def check_steps(pipe: Any, steps: int) -> None:
    summary = ak.summary(pipe)
    assert summary.num_steps == steps
    assert summary.computed_steps == schedule(steps)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, steps + 1))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_step_is_a_step_of_the_scheduler(name: str) -> None:
    tiny = PIPELINES["latte"]
    pipe = tiny.build()
    settings = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    pipe.scheduler = scheduler(name, **settings)
    plain = tiny.run(pipe)
    ak.patch(pipe, codebook={float("inf"): 1})
    with no_warning():
        assert torch.equal(tiny.run(pipe), plain)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_warning():
        assert not torch.equal(tiny.run(pipe), plain)
    check_steps(pipe, SCHEDULERS[name])


def test_a_second_order_has_two_calls_with_guidance_in_each_step() -> None:
    tiny = PIPELINES["wan"]
    pipe = tiny.build()
    pipe.scheduler = scheduler("FlowMatchHeunDiscreteScheduler")
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_warning():
        tiny.run(pipe)
    check_steps(pipe, 11)
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
        with no_warning():
            tiny.run(pipe, **given)
            check_steps(pipe, 7)
            tiny.run(pipe)
            check_steps(pipe, STEPS)


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
def test_a_part_of_the_steps(strength: float) -> None:
    tiny = PIPELINES["wan, video given"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_warning():
        tiny.run(pipe, num_inference_steps=12, strength=strength)
    check_steps(pipe, int(12 * strength))


FORCING = PIPELINES["skyreels, diffusion forcing"]


def like_the_oracle(pipe: Any, found: Tensor, run: Any, always: tuple[int, ...] = ()) -> None:
    """As in test_all_pipelines.py, but for the calls `always`, which are computed."""
    summary = ak.summary(pipe)
    ak.unpatch(pipe)
    plain = run()
    with stored_blocks([pipe.transformer], summary.num_steps, summary.computed_steps, always):
        expected = run()
    assert relative(found, expected) < 3e-6 < 3e-5 < relative(found, plain)


def test_frames_that_are_denoised_one_after_the_other() -> None:
    """More steps than timesteps: the clock is told how many by the pipeline."""
    pipe = FORCING.build()
    seen = []
    pipe.transformer.register_forward_pre_hook(lambda *_: seen.append(1))
    FORCING.run(pipe, guidance=False, ar_step=2, causal_block_size=1)
    steps = len(seen)
    assert steps > STEPS
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_warning():
        FORCING.run(pipe, ar_step=2, causal_block_size=1)
    summary = ak.summary(pipe)
    assert summary.num_steps == steps and list(summary.branches) == ["cond", "uncond"]
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, steps + 1))


def test_each_window_of_a_long_video_is_a_generation() -> None:
    long = {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5, "addnoise_condition": 0}
    pipe = ak.patch(FORCING.build(), codebook=EVERY_THIRD)
    with no_warning():
        found = FORCING.run(pipe, **long)
    check_steps(pipe, STEPS)
    like_the_oracle(pipe, found, lambda: FORCING.run(pipe, **long))


def test_frames_that_are_dropped_amid_a_run() -> None:
    """Nothing of the longer sequence is added to the shorter one."""
    tiny = PIPELINES["chronoedit"]
    reasoning = {"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 3}
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_warning():
        found = tiny.run(pipe, **reasoning)
    summary = ak.summary(pipe)
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 4, 5, 6], [3])
    assert torch.equal(tiny.run(pipe, **reasoning), found)


def test_guidance_that_ends_amid_a_run() -> None:
    """By a branch that is no longer called, and by a batch that gets smaller."""
    tiny = PIPELINES["lumina2"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    with no_warning():
        found = tiny.run(pipe, cfg_trunc_ratio=0.5)
    check_steps(pipe, STEPS)
    assert list(ak.summary(pipe).branches) == ["0", "1"]
    like_the_oracle(pipe, found, lambda: tiny.run(pipe, cfg_trunc_ratio=0.5))

    tiny = PIPELINES["z-image"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)
    whole = tiny.run(pipe)
    with no_warning():
        found = tiny.run(pipe, cfg_truncation=0.5)
    summary = ak.summary(pipe)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, STEPS + 1))
    assert torch.equal(tiny.run(pipe), whole) and not torch.equal(found, whole)


def test_guidance_that_begins_amid_a_run() -> None:
    """The unconditional branch has nothing to reuse at its first step."""
    tiny = PIPELINES["hunyuan15"]
    pipe = tiny.build()
    pipe.guider._start, pipe.guider._stop = 0.34, 0.9
    ak.patch(pipe, codebook=EVERY_THIRD)
    with no_warning():
        found = tiny.run(pipe)
    summary = ak.summary(pipe)
    assert list(summary.branches) == ["pred_cond", "pred_uncond"]
    assert summary.recomputed == {"pred_uncond": [3]}
    like_the_oracle(pipe, found, lambda: tiny.run(pipe))


@pytest.mark.parametrize("layers", [[0], [1], [2], [0, 2]])
def test_a_pass_that_skips_layers(layers: list[int]) -> None:
    """A layer within the list is no matter; the ends are what the residual lies between."""
    tiny = PIPELINES["sd3, skipped layers"]
    pipe = ak.patch(tiny.build(), codebook=EVERY_THIRD)

    def run() -> Tensor:
        return tiny.run(pipe, skip_guidance_layers=layers)

    if layers == [1]:
        with no_warning():
            found = run()
        return like_the_oracle(pipe, found, run)
    with pytest.warns(ak.AdaCacheWarning, match="skip_layers"):
        found = run()
    check_steps(pipe, STEPS)
    assert ak.summary(pipe).recomputed == {"1": [3, 4]}
    like_the_oracle(pipe, found, run, always=(1,))


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
