"""Requests, loops and references that several situations use."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.latte_and_wan import run_wan, wan
from tests.support.tiny_pipelines.schedulers import euler

STEPS = 12
EVERY_FOURTH = {1000.0: 4}
"""A codebook that reuses as much as a rate of 4 allows, whatever the distances."""
SHAPE = (1, 4, 3, 8, 8)


def lively(model: nn.Module) -> nn.Module:
    """Enlarge what the blocks of a tiny Wan add, so that a wrong residual shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "blocks." in name and parameter.ndim >= 2 and "scale_shift" not in name:
                parameter.mul_(3)
    return model


def pipeline(scheduler: Any = None) -> Any:
    """Return a lively Wan pipeline."""
    pipe = wan(scheduler=scheduler or euler(shift=3.0))
    lively(pipe.transformer)
    return pipe


def sibling(pipe: Any, scheduler: Any = None) -> Any:
    """Return another pipeline around the same transformer; it has a scheduler of its own."""
    return wan(transformer=pipe.transformer, scheduler=scheduler or euler(shift=3.0))


def prompt(seed: int) -> Tensor:
    return noise(1, 6, 16, seed=50 + seed)


def video(pipe: Any, seed: int = 0, steps: int = STEPS, **more: Any) -> Tensor:
    """Return the latents of a video with guidance."""
    given = {
        "prompt_embeds": prompt(seed),
        "negative_prompt_embeds": prompt(100 + seed),
        "generator": torch.Generator().manual_seed(seed),
    }
    return run_wan(pipe, steps, 5.0, **{**given, **more})


def steps_of(
    model: nn.Module,
    seed: int = 0,
    steps: int = STEPS,
    scheduler: Any = None,
    timestep: Callable[[Tensor], Any] = lambda t: t[None],
    named: bool = True,
) -> Iterator[Tensor]:
    """Make a video in a loop of our own; yield the latents after each step.

    Args:
        model: the transformer.
        seed: of the latents and the prompts.
        steps: the number of steps.
        scheduler: the scheduler; None: one that belongs to this video.
        timestep: from an element of the scheduler's timesteps to the argument of the model.
        named: whether the calls name their guidance branch.
    """
    scheduler = scheduler or euler(shift=3.0)
    scheduler.set_timesteps(steps)
    texts = {"cond": prompt(seed), "uncond": prompt(100 + seed)}
    latents = noise(*SHAPE, seed=seed)
    for t in list(scheduler.timesteps):
        given = timestep(t)
        found = {}
        for name, text in texts.items():
            context: AbstractContextManager[Any] = (
                model.cache_context(name) if named else nullcontext()  # type: ignore[operator]
            )
            with torch.no_grad(), context:
                found[name] = model(latents, given, text, return_dict=False)[0]
        guided = found["uncond"] + 5 * (found["cond"] - found["uncond"])
        latents = scheduler.step(guided, t, latents, return_dict=False)[0]
        yield latents


def last(steps: Iterator[Tensor]) -> Tensor:
    """Run the rest of a video and return its latents."""
    *_, latents = steps
    return latents


def by_value(t: Tensor) -> Tensor:
    """Return a timestep that is no view of the schedule."""
    return t[None].clone()


def as_number(t: Tensor) -> Tensor:
    """Return a timestep between 0 and 1, as image models take it."""
    return t[None] / 1000


def moved_by(scheduler: Any) -> Any:
    """Return a copy of a scheduler."""
    return copy.deepcopy(scheduler)


@contextmanager
def warned() -> Iterator[list[str]]:
    """Record the texts of the package's warnings."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        texts: list[str] = []
        yield texts
        texts += [str(r.message) for r in records if issubclass(r.category, ak.AdaCacheWarning)]


def calls_of_block(model: nn.Module, index: int = 1) -> list[int]:
    """Return a list that grows with every call of a block."""
    calls: list[int] = []
    blocks = model.blocks
    assert isinstance(blocks, nn.ModuleList)
    blocks[index].register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def model_alone() -> nn.Module:
    return lively(TINY["wan"].build())
