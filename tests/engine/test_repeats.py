"""A bare model that is called twice a step although the settings say once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY

STEPS = 8
WARNS = "the very same timestep tensor"


def two_calls(model: nn.Module, calls: int, timestep_of: Callable[[int], Tensor]) -> None:
    tiny = TINY["wan"]
    with torch.no_grad():
        for step in range(STEPS):
            timestep = timestep_of(step)
            for call in range(calls):
                text = tiny.text(seed=call)
                model(tiny.noise(), timestep, encoder_hidden_states=text, return_dict=False)


def new_tensor(step: int) -> Tensor:
    return torch.tensor([900 - 30 * step])


def patched(**settings: Any) -> nn.Module:
    return ak.patch(TINY["wan"].build(), codebook={1e9: 2}, **settings)


@pytest.mark.parametrize("decision", ["async", "sync"])
def test_two_calls_a_step_without_the_setting_give_a_warning(decision: Any) -> None:
    model = patched(num_inference_steps=2 * STEPS, decision=decision)
    with pytest.warns(ak.AdaCacheWarning, match=rf"{WARNS}.*cache_context, or give calls_per_step"):
        two_calls(model, 2, new_tensor)


ONE_TIMESTEP = torch.zeros(1)


def written(step: int) -> Tensor:
    return ONE_TIMESTEP.fill_(900 - 30 * step)


@pytest.mark.parametrize("timestep_of", [new_tensor, written])
@pytest.mark.parametrize(("calls", "settings"), [(1, {}), (2, {"calls_per_step": 2})])
def test_a_correct_setting_gives_no_warning(
    calls: int, settings: dict[str, Any], timestep_of: Callable[[int], Tensor]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        two_calls(patched(num_inference_steps=STEPS, **settings), calls, timestep_of)
