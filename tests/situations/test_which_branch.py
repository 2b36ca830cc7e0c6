"""Branches: prompts, controls, windows and guidance that change within a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.situations.requests import (
    EVERY_FOURTH,
    calls_of_block,
    lively,
    pipeline,
    prompt,
    video,
    warned,
)
from tests.support.tiny_models.description import build_model, description, noise
from tests.support.tiny_pipelines.schedulers import euler

STEPS = 16
EVERY_SIXTH = {1000.0: 6}
Trajectory = list[Tensor]


def with_callback(pipe: Any, change: Callable[[int, dict[str, Any]], None]) -> Trajectory:
    """Return the latents after every step of a video whose callback changes something."""
    trajectory: Trajectory = []

    def callback(_pipe: Any, index: int, _t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        trajectory.append(kwargs["latents"].clone())
        change(index, kwargs)
        return kwargs

    video(
        pipe,
        steps=20,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds", "negative_prompt_embeds"],
    )
    return trajectory


def moved(one: Trajectory, other: Trajectory, step: int) -> float:
    return (one[step] - other[step]).abs().max().item()


def new_object(kwargs: dict[str, Any], name: str) -> None:
    kwargs[name] = prompt(77) * 3


def in_place(kwargs: dict[str, Any], name: str) -> None:
    kwargs[name].copy_(prompt(77) * 3)


PROMPT, NEGATIVE = "prompt_embeds", "negative_prompt_embeds"


@pytest.mark.parametrize(
    ("at", "change", "name", "inference"),
    [  # Each pair of values is in one of them.
        (4, new_object, PROMPT, False),
        (4, in_place, NEGATIVE, True),
        (8, new_object, NEGATIVE, True),
        (8, in_place, PROMPT, False),
        (9, new_object, PROMPT, True),
        (9, in_place, NEGATIVE, False),
    ],
)
def test_a_prompt_that_changes_counts_at_once(
    at: int, change: Callable[[dict[str, Any], str], None], name: str, inference: bool
) -> None:
    """The next step moves as much as without the patch, and the run goes on reusing."""

    def changing(index: int, kwargs: dict[str, Any]) -> None:
        if index == at:
            change(kwargs, name)

    found = []
    for is_patched in (True, False):
        pipe = pipeline()
        if is_patched:
            ak.patch(pipe, codebook=EVERY_SIXTH)
        with torch.inference_mode(inference):
            before = with_callback(pipe, lambda index, kwargs: None)
            after = with_callback(pipe, changing)
        found.append(moved(before, after, at + 1))
        if is_patched:
            summary = ak.summary(pipe)
            assert [step for step in summary.reused_steps if step > at + 2]
            assert any("encoder_hidden_states changed" in text for text in summary.reasons)
    assert found[0] > 0.3 * found[1] > 0


def control(model: nn.Module, scale: Callable[[int], float], steps: int = STEPS) -> Trajectory:
    """Run a controlled Wan whose control has another strength in every step."""
    scheduler = euler(shift=3.0)
    scheduler.set_timesteps(steps)
    latents, trajectory = noise(1, 4, 3, 8, 8), []
    given = {
        "encoder_hidden_states": noise(1, 6, 16, seed=1),
        "control_hidden_states": noise(1, 12, 3, 8, 8, seed=2),
        "return_dict": False,
    }
    layers = len(model.config.vace_layers)  # type: ignore[union-attr, arg-type]
    for index, t in enumerate(scheduler.timesteps):
        strength = torch.full((layers,), scale(index))
        with torch.no_grad():
            velocity = model(latents, t[None], control_hidden_states_scale=strength, **given)[0]
        latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
        trajectory.append(latents)
    return trajectory


@pytest.mark.parametrize("at", [5, 9])
def test_a_control_that_ends_counts_at_once(at: int) -> None:
    entry = description("vace")
    found = []
    for is_patched in (True, False):
        model = lively(build_model(entry["class"], entry["config"]))
        if is_patched:
            ak.patch(model, num_inference_steps=STEPS, codebook=EVERY_SIXTH)
        on = control(model, lambda index: 1.0)
        off = control(model, lambda index: 1.0 if index < at else 0.0)
        found.append(moved(on, off, at))
    assert found[0] > 0.3 * found[1] > 0


def windows(
    model: nn.Module,
    places: Callable[[int], Sequence[int]],
    name: Callable[[int], AbstractContextManager[Any]] = lambda place: nullcontext(),
    view: Callable[[Tensor], Tensor] = lambda window: window,
    frames: int = 7,
    steps: int = 12,
) -> Tensor:
    """Denoise a long video in overlapping windows of three frames within every step."""
    scheduler = euler(shift=3.0)
    scheduler.set_timesteps(steps)
    latents, text = noise(1, 4, frames, 8, 8), prompt(0)
    for index, t in enumerate(scheduler.timesteps):
        total, count = torch.zeros_like(latents), torch.zeros(1, 1, frames, 1, 1)
        for place in places(index):
            part = slice(place, place + 3)
            with torch.no_grad(), name(place):
                found = model(view(latents[:, :, part]), t[None], text, return_dict=False)[0]
            total[:, :, part] += found
            count[:, :, part] += 1
        latents = scheduler.step(total / count.clamp(min=1), t, latents, return_dict=False)[0]
    return latents


ORDERS: dict[str, Callable[[int], Sequence[int]]] = {
    "the same order": lambda index: (0, 2, 4),
    "alternating": lambda index: [(0, 2, 4), (4, 2, 0)][index % 2],
    "rotating": lambda index: [(0, 2, 4), (2, 4, 0), (4, 0, 2)][index % 3],
    "one at a time": lambda index: [(0,), (2,), (4,)][index % 3],
    "moving on": lambda index: (min(index, 4),),
}


@pytest.mark.parametrize("places", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("view", [lambda w: w, torch.clone], ids=["view", "copy"])
def test_windows_are_never_mixed(
    places: Callable[[int], Sequence[int]], view: Callable[[Tensor], Tensor]
) -> None:
    """A window of a view is known by its place. Copies are computed, unless they have names."""
    model = pipeline().transformer
    full = windows(model, places, view=view)
    ak.patch(model, num_inference_steps=12, codebook=EVERY_FOURTH)
    named = windows(model, places, lambda place: ak.cache_context(f"window {place}"), view)
    ak.unpatch(model)
    ak.patch(model, num_inference_steps=12, codebook=EVERY_FOURTH)
    with warned() as texts:
        found = windows(model, places, view=view)
    is_view = view(torch.zeros(1, 1, 2)[:, :, 1:]).storage_offset() > 0
    if is_view:
        assert torch.equal(found, named) and not texts
    elif len(places(0)) > 1:
        assert torch.equal(found, full) and any("cache_context" in text for text in texts)


@pytest.mark.parametrize("count", [10, 20])
def test_many_windows_are_cached_like_two(count: int) -> None:
    model = pipeline().transformer
    ak.patch(model, num_inference_steps=12, codebook=EVERY_FOURTH)
    blocks = calls_of_block(model)
    with warned() as texts:
        windows(model, lambda index: range(0, 2 * count, 2), frames=2 * count + 1)
    summary = ak.summary(model)
    assert len(blocks) == count * len(summary.computed_steps) < 0.55 * 12 * count
    assert not texts and not summary.recomputed


def guided(model: nn.Module, texts_of: Callable[[int], Sequence[Tensor]]) -> Iterator[Tensor]:
    scheduler = euler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    latents = noise(1, 4, 3, 8, 8)
    for index, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            found = [model(latents, t[None], x, return_dict=False)[0] for x in texts_of(index)]
        velocity = torch.stack(found).mean(0)
        latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
        yield latents


COND, UNCOND, THIRD = prompt(1), prompt(2), prompt(3)
SETS: dict[str, Callable[[int], Sequence[Tensor]]] = {
    "guidance begins": lambda index: (UNCOND, COND) if index >= 6 else (COND,),
    "guidance ends": lambda index: (UNCOND, COND) if index < 6 else (COND,),
    "the order turns": lambda index: (UNCOND, COND) if index % 2 else (COND, UNCOND),
    "a third prompt at times": lambda index: (COND, UNCOND, *([THIRD] if index % 3 else [])),
    "the prompts travel": lambda index: (COND + 0.01 * index, UNCOND),
}


@pytest.mark.parametrize("texts_of", SETS.values(), ids=SETS)
def test_sets_of_branches_that_change(texts_of: Callable[[int], Sequence[Tensor]]) -> None:
    """Unnamed calls make the video of named ones."""
    model = pipeline().transformer

    def named(index: int) -> Iterator[Tensor]:
        for text in texts_of(index):
            is_cond = not any(text is other for other in (UNCOND, THIRD))
            name = "cond" if is_cond else "uncond" if text is UNCOND else "third"
            with ak.cache_context(name):
                yield text

    ak.patch(model, num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    expected = list(guided(model, named))  # type: ignore[arg-type]
    ak.unpatch(model)
    ak.patch(model, num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    found = list(guided(model, texts_of))
    summary = ak.summary(model)
    assert {STEPS - 1, STEPS} <= set(summary.computed_steps)
    assert all(map(torch.equal, found, expected)) or texts_of in list(SETS.values())[:2]
    assert torch.isfinite(found[-1]).all()
