"""Pipelines with offloading: accelerate removes and adds its hooks after each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.rounding import close, close_numbers
from tests.support.tiny_pipelines.latte_and_wan import run_wan
from tests.support.tiny_pipelines.latte_and_wan import wan as one_model
from tests.support.tiny_pipelines.two_experts import experts

STEPS = 6
ALWAYS = {1.0: 1}
EVERY_THIRD = {float("inf"): 3}
Offload = Callable[[Any], None]


def by_model(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def by_layer(pipe: Any) -> None:
    # enable_sequential_cpu_offload does this, but fails for device="cpu".
    from accelerate import cpu_offload

    for model in (pipe.transformer, getattr(pipe, "transformer_2", None)):
        if model is not None:
            cpu_offload(model, execution_device=torch.device("cpu"))


def by_group(pipe: Any) -> None:
    pipe.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


def run(pipe: Any) -> Tensor:
    return run_wan(pipe, STEPS)


@pytest.mark.parametrize("build", [one_model, experts])
@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize("offload", [by_model, by_layer, by_group])
def test_run_after_run(offload: Offload, first: str, build: Callable[[], Any]) -> None:
    never_offloaded = build()
    plain = run(never_offloaded)
    ak.patch(never_offloaded, codebook=EVERY_THIRD)
    reused, summary = run(never_offloaded), ak.summary(never_offloaded)

    pipe = build()
    if first == "theirs":
        offload(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    if first == "ours":
        offload(pipe)
    for _ in range(2):
        assert close(run(pipe), reused)
        found = ak.summary(pipe)
        assert found.computed_steps == summary.computed_steps
        assert close_numbers(found.distances, summary.distances)
    ak.unpatch(pipe)
    offloaded = run(pipe)
    assert close(offloaded, plain)
    ak.patch(pipe, codebook=ALWAYS)
    for _ in range(2):
        assert torch.equal(run(pipe), offloaded)
        assert ak.summary(pipe).computed_steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("offload", [by_model, by_layer])
def test_hooks_that_are_removed(offload: Offload) -> None:
    pipe = one_model()
    plain = run(pipe)
    offload(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    reused = run(pipe)
    pipe.remove_all_hooks()
    assert torch.equal(run(pipe), reused) and not torch.equal(reused, plain)
    offload(pipe)
    assert torch.equal(run(pipe), reused)
    ak.unpatch(pipe)
    pipe.remove_all_hooks()
    assert torch.equal(run(pipe), plain)
    assert "_old_forward" not in vars(pipe.transformer)


def test_one_expert_is_offloaded_while_the_other_runs() -> None:
    """Its weights are offloaded; its residuals stay, and are those of its own steps."""
    reused = run(ak.patch(experts(), codebook=EVERY_THIRD))
    pipe = ak.patch(experts(), codebook=EVERY_THIRD)
    by_layer(pipe)
    gone = []

    def look(pipe: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        gone.append(pipe.transformer.proj_out.weight.is_meta)
        return values

    assert close(run_wan(pipe, STEPS, callback_on_step_end=look), reused)
    assert all(gone)
