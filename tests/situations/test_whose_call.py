"""Generations: runs that were stopped, siblings, copies, threads, retries, other lengths."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.api import installation
from adacache_kernels.engine.evidence import call_evidence
from tests.situations.requests import (
    EVERY_FOURTH,
    STEPS,
    as_number,
    by_value,
    calls_of_block,
    last,
    model_alone,
    pipeline,
    prompt,
    sibling,
    steps_of,
    video,
    warned,
)
from tests.support.tiny_pipelines.schedulers import euler, unipc


class Stop(Exception):
    """Stops a pipeline from a callback."""


def stop_at(step: int) -> Callable[..., Any]:
    def callback(_pipe: Any, index: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if index == step:
            raise Stop
        return kwargs

    return callback


def patched(pipe: Any) -> Any:
    return ak.patch(pipe, codebook=EVERY_FOURTH)


def alone(pipe: Any, run: Callable[[], Tensor]) -> Tensor:
    """Return what a freshly patched pipeline makes, and leave it unpatched."""
    patched(pipe)
    expected = run()
    assert ak.summary(pipe).reused_steps
    ak.unpatch(pipe)
    return expected


def stopped(pipe: Any, step: int) -> None:
    with pytest.raises(Stop):
        video(pipe, 0, callback_on_step_end=stop_at(step))


@pytest.mark.parametrize("step", [0, 2, 5])
@pytest.mark.parametrize("make_scheduler", [euler, unipc])
def test_another_pipeline_after_a_stopped_run(step: int, make_scheduler: Callable[[], Any]) -> None:
    pipe = pipeline()
    other = sibling(pipe, make_scheduler())
    expected = alone(other, lambda: video(other, 1))
    patched(pipe)
    stopped(pipe, step)
    assert torch.equal(video(other, 1), expected)
    assert ak.summary(pipe).reused_steps


@pytest.mark.parametrize("step", [0, 2, 5])
def test_the_same_pipeline_after_a_stopped_run(step: int) -> None:
    pipe = pipeline()
    expected = alone(pipe, lambda: video(pipe, 1))
    patched(pipe)
    stopped(pipe, step)
    assert torch.equal(video(pipe, 1), expected)


def test_a_pipeline_that_is_interrupted_by_its_flag() -> None:
    pipe = pipeline()
    expected = alone(pipe, lambda: video(pipe, 1))
    patched(pipe)

    def interrupt(pipe: Any, index: int, _t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = index >= 4
        return kwargs

    video(pipe, 0, callback_on_step_end=interrupt)
    assert torch.equal(video(pipe, 1), expected)


@pytest.mark.parametrize("timestep", [by_value, as_number])
def test_a_loop_after_a_stopped_run_whose_timesteps_are_copies(
    timestep: Callable[[Tensor], Tensor],
) -> None:
    """Image models get a twentieth or a thousandth of the timestep, which is no view."""
    pipe = pipeline()
    model = pipe.transformer
    patched(pipe)
    expected = last(steps_of(model, 1, timestep=timestep))
    ak.unpatch(pipe)
    patched(pipe)
    stopped(pipe, 2)
    assert torch.equal(last(steps_of(model, 1, timestep=timestep)), expected)


@pytest.mark.parametrize("has_step_index", [True, False])
def test_a_pipeline_on_a_device_after_a_stopped_run_of_its_sibling(
    has_step_index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be read, and no timestep is a view. The prompts are those of the stopped run."""
    if not has_step_index:
        monkeypatch.setattr(installation, "_place_in", lambda kwargs: {})
    monkeypatch.setattr(call_evidence, "readable_time", lambda timestep: None)
    monkeypatch.setattr(call_evidence, "schedule_place", lambda timestep: None)
    pipe = pipeline()
    other = sibling(pipe)
    full = video(other, 0)
    patched(pipe)
    stopped(pipe, 2)
    with warned() as texts:
        found = video(other, 0)
    assert bool(texts) != has_step_index
    assert torch.equal(found, alone_again(pipe, other) if has_step_index else full)


def alone_again(pipe: Any, other: Any) -> Tensor:
    ak.unpatch(pipe)
    patched(other)
    return video(other, 0)


@pytest.mark.parametrize("strength", [0.6, 0.3])
def test_video_to_video_through_a_sibling_that_shares_the_scheduler(strength: float) -> None:
    pipe = pipeline()
    run = edit_of(pipe, strength)
    patched(pipe)
    video(pipe, 5, 20)
    found = run()
    summary = ak.summary(pipe)
    ran = len(summary.computed_steps) + len(summary.reused_steps)
    assert ran == int(20 * strength) == summary.num_steps
    assert {ran - 1, ran} <= set(summary.computed_steps)
    ak.reset(pipe)
    assert torch.equal(run(), found)


def edit_of(pipe: Any, strength: float) -> Callable[[], Tensor]:
    """Return a run of video to video through another pipeline with the same parts."""
    import diffusers

    editing = diffusers.WanVideoToVideoPipeline(None, None, pipe.transformer, None, pipe.scheduler)
    editing.set_progress_bar_config(disable=True)

    def run() -> Tensor:
        frames: Tensor = editing(
            prompt_embeds=prompt(0),
            negative_prompt_embeds=prompt(100),
            height=64,
            width=64,
            num_inference_steps=20,
            guidance_scale=5.0,
            strength=strength,
            latents=torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(3)),
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).frames
        return frames

    return run


@pytest.mark.parametrize("timestep", [lambda t: t[None], by_value])
@pytest.mark.parametrize("given, run", [(30, 20), (12, 20), (20, 20)])
def test_a_bare_model_whose_number_of_steps_is_wrong(
    given: int, run: int, timestep: Callable[[Tensor], Tensor]
) -> None:
    """Every run is as if it were the first one, and the wrong number is reported."""
    model = model_alone()

    def patch() -> None:
        ak.patch(model, num_inference_steps=given, codebook=EVERY_FOURTH)

    patch()
    expected = last(steps_of(model, 1, run, timestep=timestep))
    ak.unpatch(model)
    patch()
    with warned() as texts:
        last(steps_of(model, 0, run, timestep=timestep))
        found = last(steps_of(model, 1, run, timestep=timestep))
    assert torch.equal(found, expected)
    assert any("num_inference_steps" in text for text in texts) == (given != run)


@pytest.mark.parametrize("stopped_after", [1, 3, 7])
def test_a_bare_model_after_a_stopped_loop(stopped_after: int) -> None:
    model = ak.patch(model_alone(), num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    expected = last(steps_of(model, 1))
    unfinished = steps_of(model, 0)
    for _ in range(stopped_after):
        next(unfinished)
    assert torch.equal(last(steps_of(model, 1)), expected)


@pytest.mark.parametrize("failing", [2, 5, 11])
def test_a_call_that_fails_and_is_repeated(failing: int) -> None:
    """The steps keep their numbers, so the last two are computed."""
    pipe = pipeline()
    model = pipe.transformer
    expected = alone(pipe, lambda: video(pipe, steps=20))
    patched(pipe)
    calls = [0]

    def fail(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise RuntimeError("out of memory")

    handle = model.proj_out.register_forward_pre_hook(fail)
    run = model.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except RuntimeError:
            return run(*args, **kwargs)

    model.forward = again
    found = video(pipe, steps=20)
    handle.remove()
    summary = ak.summary(pipe)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, 21))
    assert {19, 20} <= set(summary.computed_steps) and summary.reused_steps
    assert torch.isfinite(found).all()
    assert torch.equal(video(pipe, steps=20), expected), "the next video is as the first one"


def test_set_timesteps_before_every_step() -> None:
    pipe = patched(pipeline())
    blocks = calls_of_block(pipe.transformer)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps.clone()
    latents = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    text = prompt(0)
    for t in times:
        scheduler.set_timesteps(STEPS)
        with torch.no_grad():
            velocity = pipe.transformer(latents, t[None], text, return_dict=False)[0]
        latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
    assert len(blocks) < STEPS and ak.summary(pipe).reused_steps


def test_two_models_that_share_a_scheduler() -> None:
    """No false alarm, and each video is as if it were alone."""
    scheduler = euler(shift=3.0)
    first, second = pipeline(scheduler), pipeline(scheduler)
    expected = [alone(first, lambda: video(first, 0)), alone(second, lambda: video(second, 1))]
    patched(first), patched(second)
    with warned() as texts:
        found = [video(first, 0), video(second, 1)]
    assert all(map(torch.equal, found, expected)) and not texts


def in_threads(runs: list[Callable[[], Tensor]]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    start = threading.Barrier(len(runs))

    def work(index: int) -> None:
        start.wait(30)
        found[index] = runs[index]()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [found[index] for index in range(len(runs))]


@pytest.mark.parametrize("copied", [False, True])
def test_a_pipeline_per_request_in_threads(copied: bool) -> None:
    """Each request reuses as many steps as alone, and makes the same video."""
    pipe = pipeline()
    blocks = calls_of_block(pipe.transformer)

    def requests() -> list[Any]:
        schedulers = [copy.deepcopy(pipe.scheduler) if copied else euler(shift=3.0) for _ in "123"]
        return [sibling(pipe, scheduler) for scheduler in schedulers]

    patched(pipe)
    expected = [video(request, seed) for seed, request in enumerate(requests())]
    alone_calls = len(blocks)
    assert alone_calls < 3 * 2 * STEPS * 0.7
    made = requests()
    found = in_threads([lambda i=i: video(made[i], i) for i in range(3)])  # type: ignore[misc]
    assert all(map(torch.equal, found, expected))
    assert len(blocks) == 2 * alone_calls


@pytest.mark.parametrize("named", [True, False])
def test_requests_that_take_turns_in_one_thread(named: bool) -> None:
    model = model_alone()
    expected, sizes = [], ((0, 12), (1, 12), (2, 9))
    for seed, steps in sizes:
        ak.patch(model, num_inference_steps=steps, codebook=EVERY_FOURTH)
        expected.append(last(steps_of(model, seed, steps, named=named)))
        ak.unpatch(model)
    ak.patch(model, num_inference_steps=12, codebook=EVERY_FOURTH)
    requests = [steps_of(model, seed, steps, named=named) for seed, steps in sizes]
    found: dict[int, Tensor] = {}
    order = torch.Generator().manual_seed(1)
    alive = [0, 1, 2]
    while alive:
        index = alive[int(torch.randint(len(alive), (1,), generator=order))]
        latents = next(requests[index], None)
        if latents is None:
            alive.remove(index)
        else:
            found[index] = latents
    assert all(torch.equal(found[i], expected[i]) for i in range(3))


def test_a_request_inside_the_callback_of_another() -> None:
    pipe = pipeline()
    model = pipe.transformer
    expected = alone(pipe, lambda: video(pipe, 0))
    patched(pipe)
    of_request = last(steps_of(model, 7))
    request = steps_of(model, 7)
    latents: list[Tensor] = []

    def advance(_pipe: Any, _index: int, _t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        latents.append(next(request))
        return kwargs

    assert torch.equal(video(pipe, 0, callback_on_step_end=advance), expected)
    assert torch.equal(latents[-1], of_request)


def test_requests_within_a_budget_for_one() -> None:
    """The request with the oldest call loses its memory; its next steps are computed."""
    model = model_alone()
    ak.patch(model, num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    expected = last(steps_of(model, 0))
    arena = ak.summary(model).memory.arena
    assert arena is not None
    ak.unpatch(model)
    ak.patch(model, num_inference_steps=STEPS, codebook=EVERY_FOURTH, max_cache_bytes=arena.mapped)
    first, second = steps_of(model, 1), steps_of(model, 0)
    for _ in range(4):
        next(first)
    assert torch.equal(last(second), expected)
    assert torch.isfinite(last(first)).all()


def test_a_model_that_another_model_calls(request: pytest.FixtureRequest) -> None:
    """A draft model with the same weights runs inside a hook: refused, with what to do."""
    model: nn.Module = ak.patch(model_alone(), num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    handle = model.proj_out.register_forward_pre_hook(lambda *_: next(steps_of(model, 3)) and None)
    request.addfinalizer(handle.remove)
    with pytest.raises(RuntimeError, match="further up in this thread"):
        last(steps_of(model, 0))
