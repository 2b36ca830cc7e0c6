"""Generations and calibrations of a tiny model, with seconds that are given, not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from adacache_kernels import Calibration, calibrate
from adacache_kernels.calibration import timed_runs
from adacache_kernels.evaluate.pipelines import Subject
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

STEPS = 12
COMPUTED, REUSED = 1.0, 0.1
TINY_WAN = TINY["wan"]
Generate = Callable[[int], Any]


def denoising(model: nn.Module, steps: int = STEPS) -> Generate:
    """Return a function from a seed to an outcome with values in 0 to 1."""

    def run(seed: int) -> Any:
        latents = TINY_WAN.noise(seed=seed)
        with torch.no_grad():
            for step in range(1, steps + 1):
                latents = latents - 0.05 * TINY_WAN.call(model, latents, step)
        return torch.sigmoid(latents)

    return run


@contextmanager
def fixed_seconds(transformer: nn.Module) -> Iterator[list[float]]:
    """Yield the seconds of every forward call, by whether its first block ran."""
    seconds: list[float] = []
    ran: list[bool] = []
    blocks = getattr(transformer, "blocks", None) or transformer.get_submodule("transformer_blocks")
    handles = [
        blocks[0].register_forward_hook(lambda *_: ran.append(True)),
        transformer.register_forward_hook(
            lambda *_: (seconds.append(COMPUTED if ran else REUSED), ran.clear())[1]
        ),
    ]
    yield seconds
    for handle in handles:
        handle.remove()


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_runs, "timed_forwards", fixed_seconds)


def calibrated(**arguments: Any) -> Calibration:
    """Calibrate the tiny model with seeds 0 to 3, one of them held out."""
    model = TINY_WAN.build()
    defaults: dict[str, Any] = dict(trials=2, rounds=2, num_inference_steps=STEPS)
    return calibrate(model, range(4), denoising(model), **(defaults | arguments))


@pytest.fixture(scope="session")
def faster() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_runs, "timed_forwards", fixed_seconds)
        return calibrated(target_speedup=2.0, rounds=4)


@pytest.fixture(scope="session")
def plain() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_runs, "timed_forwards", fixed_seconds)
        return calibrated(target_speedup=1.8, kind="codebook", held_out=[7, 8])


def of_pipeline(pipe: Any) -> Generate:
    def run(seed: int) -> Any:
        noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        return torch.sigmoid(run_latte(pipe, 8, latents=noise))

    return run


def subject() -> Subject:
    pipe = latte()
    run = of_pipeline(pipe)
    return Subject(pipe, lambda prompt, steps, seed: run(10 * len(prompt) + seed).numpy())
