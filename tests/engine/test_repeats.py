"""A bare model that is called twice a step, without a setting that says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.engine.evidence import call_evidence
from tests.support.tiny_models.common_models import TINY

STEPS = 8
ONE_TIMESTEP = torch.zeros(1)


def new_tensor(step: int) -> Tensor:
    return torch.tensor([900 - 30 * step])


def written(step: int) -> Tensor:
    return ONE_TIMESTEP.fill_(900 - 30 * step)


def outputs(model: nn.Module, timestep_of: Callable[[int], Tensor], calls: int = 2) -> list[Tensor]:
    """Run a generation with a prompt of its own for each call of a step."""
    tiny = TINY["wan"]
    texts = [tiny.text(seed=call) for call in range(calls)]
    found = []
    with torch.no_grad():
        for step in range(STEPS):
            timestep = timestep_of(step)
            found += [
                model(tiny.noise(seed=step), timestep, encoder_hidden_states=text)[0]
                for text in texts
            ]
    return found


def patched(**settings: Any) -> nn.Module:
    return ak.patch(TINY["wan"].build(), codebook={1e9: 2}, num_inference_steps=STEPS, **settings)


@pytest.mark.parametrize("decision", ["async", "sync"])
@pytest.mark.parametrize("timestep_of", [new_tensor, written])
@pytest.mark.parametrize("is_readable", [True, False])
def test_calls_with_other_prompts_are_branches(
    decision: Any,
    timestep_of: Callable[[int], Tensor],
    is_readable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_readable:
        monkeypatch.setattr(call_evidence, "readable_time", lambda timestep: None)
    model = patched(decision=decision)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        found = outputs(model, timestep_of)
    summary = ak.summary(model)
    assert (summary.branches, summary.reused_steps) == (["0", "1"], [3, 5])
    ak.unpatch(model)
    ak.patch(
        model, codebook={1e9: 2}, num_inference_steps=STEPS, calls_per_step=2, decision=decision
    )
    expected = outputs(model, timestep_of)
    assert ak.summary(model).reused_steps == [3, 5]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
