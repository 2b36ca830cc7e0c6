"""Run generations of a small Wan model on the ranks of a gloo group, and count and time them."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import adacache_kernels as ak
from bench.runtime import random_wan
from bench.runtime.scaling.recorder import Meeting, Message, Recorder, meetings

STEPS = 20
UNPATCHED = "unpatched"
CODEBOOK = {0.05: 4, 0.1: 3, 0.3: 2}
"""Distances of random weights mean nothing: these thresholds give some reused steps."""
WAYS: Mapping[str, Any] = {
    UNPATCHED: None,
    "PAB": ak.baselines.PABConfig(spatial=2, cross=6, window=(100, 850)),
    "static, 50 %": {"schedule": [1, *range(3, STEPS - 1, 2), STEPS]},
    "static, 30 %": {"schedule": [1, 5, 9, 13, 17, STEPS]},
    "measured": {"codebook": CODEBOOK},
    "measured, motion": {"codebook": CODEBOOK, "apply_moreg": True, "moreg_steps": (1, STEPS)},
}
"""Settings of each way to run the model."""


@dataclass(frozen=True)
class Counted:
    """The collectives of one generation on one rank.

    Args:
        messages: the collectives.
        meetings: the exchanges of the hosts.
        computed: the computed steps, counted from 1.
        latents: the result.
    """

    messages: list[Message]
    meetings: list[Meeting]
    computed: list[int]
    latents: Tensor


@dataclass(frozen=True)
class Size:
    """The size of a video and of the model.

    Args:
        frames: latent frames.
        side: rows and columns of the latent video.
        layers: blocks of the model.
        rows: videos in one call.
    """

    frames: int = 5
    side: int = 16
    layers: int = 6
    rows: int = 1

    @property
    def latents(self) -> tuple[int, ...]:
        return self.rows, random_wan.CHANNELS, self.frames, self.side, self.side


def build(way: str, size: Size) -> nn.Module:
    """Return a model of this rank, split by diffusers if there are several ranks, and patched."""
    pipe, _ = random_wan.build("cpu", layers=size.layers)
    model: Any = pipe.transformer
    if dist.get_world_size() > 1:
        from diffusers import ContextParallelConfig

        config = ContextParallelConfig(ulysses_degree=dist.get_world_size())
        model.enable_parallelism(config=config)
    settings = WAYS[way]
    if isinstance(settings, dict):
        ak.patch(model, num_inference_steps=STEPS, **settings)
    elif settings is not None:
        ak.patch(model, settings, num_inference_steps=STEPS)
    return model


def generate(model: nn.Module, size: Size, recorder: Recorder | None = None) -> Tensor:
    """Run one generation, and return its latents."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(size.latents, generator=generator)
    text = torch.randn(size.rows, random_wan.TOKENS, random_wan.TEXT, generator=generator)
    with torch.no_grad():
        for step in range(STEPS):
            if recorder is not None:
                recorder.step = step + 1
            timestep = torch.full((size.rows,), 1000 - 1000 * step // STEPS)
            with ak.cache_context("cond", step_index=step, num_inference_steps=STEPS):
                (velocity,) = model(
                    hidden_states=latents,
                    timestep=timestep,
                    encoder_hidden_states=text,
                    return_dict=False,
                )
            latents = latents - velocity / STEPS
    return latents


def count_on_rank(way: str, size: Size) -> Counted:
    """Run one generation on this rank, and return its collectives."""
    warnings.simplefilter("ignore")
    model = build(way, size)
    with meetings() as met, Recorder() as recorder:
        latents = generate(model, size, recorder)
    every = list(range(1, STEPS + 1))
    computed = every if WAYS[way] is None else ak.summary(model).computed_steps
    return Counted(recorder.messages, met, computed, latents)


def count_all_on_rank(size: Size) -> dict[str, Counted]:
    """Return the collectives of a generation of each way on this rank."""
    return {way: count_on_rank(way, size) for way in WAYS}


def time_on_rank(size: Size, repeats: int, seed: int) -> dict[str, list[float]]:
    """Return the seconds of `repeats` generations of each way, until the last rank is done.

    Every repeat runs each way once, in a random order that is the same on every rank.
    """
    warnings.simplefilter("ignore")
    models = {way: build(way, size) for way in WAYS}
    for model in models.values():
        generate(model, size)
    order, generator = list(models), random.Random(seed)
    times: dict[str, list[float]] = {way: [] for way in models}
    for _ in range(repeats):
        generator.shuffle(order)
        for way in order:
            dist.barrier()
            start = time.perf_counter()
            generate(models[way], size)
            dist.barrier()
            times[way].append(time.perf_counter() - start)
    return times
