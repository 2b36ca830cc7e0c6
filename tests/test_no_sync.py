"""No step of a patched model makes the host wait for the device: seen on fake CUDA tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import adacache_kernels as ak
import fake_cuda
from adacache_kernels.policies import AdaCachePolicy
from adacache_kernels.profile import Profile, identity
from fake_cuda import SyncSpy, to_fake_cuda
from fake_cuda.patched import fake_parts
from tiny import TINY, Tiny

pytestmark = pytest.mark.skipif(fake_cuda.why_not() is not None, reason=str(fake_cuda.why_not()))

STEPS = 10
FAMILIES = pytest.mark.parametrize("name", TINY)
SETTINGS: dict[str, dict[str, Any]] = {
    "fast": {},
    "slow": {"config": "slow"},
    "forecast": {"config": "forecast"},
    "motion": {"apply_moreg": True},
    "forecast and motion": {"config": "forecast", "apply_moreg": True},
    "a parabola": {"forecast": 2, "correct": True},
    "a schedule": {"schedule": [1, 2, 5, 8]},
    "several locations": {"cache_loc": ("start", "end"), "cache_res": "ca-mlp"},
    "cosine": {"metric": "cosine", "cache_res": "block"},
    "int8": {"cache_dtype": "int8"},
    "fp8": {"cache_dtype": "fp8", "forecast": 1, "measure": "forecast-error"},
}


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


def fake_inputs(tiny: Tiny, batch: int = 1) -> dict[str, Any]:
    """What the forward takes, all of it on the device."""

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(moved, value))
        return empty(*value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value

    return {
        "hidden_states": empty(batch, *tiny.latents),
        "encoder_hidden_states": empty(batch, 6, tiny.text_channels),
        "timestep": empty(batch, dtype=torch.int64),
        "return_dict": False,
        **{name: moved(value) for name, value in tiny.extra(batch).items()},
    }


def generate(
    name: str,
    prepare: Callable[[nn.Module], Any],
    *,
    generations: int = 2,
    branches: tuple[str | None, ...] = (None,),
) -> tuple[nn.Module, SyncSpy]:
    """Whole generations of a model that `prepare` has patched, and who made the host wait."""
    model = TINY[name].build()
    with fake_cuda.fake_cuda(), fake_parts(), SyncSpy() as spy, torch.no_grad():
        prepare(to_fake_cuda(model))
        for _ in range(generations * STEPS):
            for branch in branches:
                with nullcontext() if branch is None else ak.cache_context(branch):
                    model(**fake_inputs(TINY[name]))
    return model, spy


def no_waits(name: str, prepare: Callable[[nn.Module], Any], **how: Any) -> nn.Module:
    """Run generations.

    Raises:
        AssertionError: the host waited, or wanted a value; names the lines.
    """
    spy = SyncSpy()
    try:
        model, spy = generate(name, prepare, **how)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise AssertionError(f"a value is needed on the host: {error}") from error
    assert not spy.waits, "the host waits:\n" + "\n".join(map(str, spy.waits))
    return model


def patch(**settings: Any) -> Callable[[nn.Module], Any]:
    return lambda model: ak.patch(model, num_inference_steps=STEPS, **settings)


@FAMILIES
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_whole_generations(name: str, settings: dict[str, Any]) -> None:
    model = no_waits(name, patch(**settings))
    summary = ak.summary(model)
    assert summary.computed_steps and summary.reused_steps


@FAMILIES
def test_the_models_themselves_do_not_wait(name: str) -> None:
    no_waits(name, lambda model: None)
