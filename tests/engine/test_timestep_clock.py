"""A bare model without a given number of steps."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from adacache_kernels.engine.clocks.timestep_clock import TimestepClock, readable_time
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.demo.presets import PROFILES
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise

EVERY_THIRD = {float("inf"): 3}


def wan() -> nn.Module:
    return TINY["wan"].build()


def call(model: nn.Module, timestep: Any, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return model(
            hidden_states=noise(1, 4, 3, 8, 8, seed=seed),
            timestep=timestep,
            encoder_hidden_states=noise(1, 6, 16, seed=100),
            return_dict=False,
        )[0]


def trailing(steps: int) -> list[float]:
    """Return timesteps from 1000 down to one stride above 0."""
    return [1000.0 * (steps - i) / steps for i in range(steps)]


def leading(steps: int) -> list[float]:
    """Return timesteps from one stride below 1000 down to 0."""
    return [1000.0 * (steps - 1 - i) / steps for i in range(steps)]


def clocked(times: list[float], calls_per_step: int = 1) -> list[Any]:
    clock = TimestepClock(calls_per_step)
    return [clock.next_call(None, {"timestep": torch.tensor([time])}) for time in times]


@pytest.mark.parametrize("times", [trailing(12), leading(12), [t / 1000 for t in trailing(12)]])
def test_the_last_two_steps_are_near_the_end(times: list[float]) -> None:
    near = [call.step for call in clocked(times) if call.near_end]
    assert near[-2:] == [11, 12] and near[0] >= 10


def test_rising_timesteps_end_at_one_or_at_a_thousand() -> None:
    for scale in (1.0, 1000.0):
        times = [scale * i / 12 for i in range(12)]
        near = [call.step for call in clocked(times) if call.near_end]
        assert near[-2:] == [11, 12] and near[0] >= 10


@pytest.mark.parametrize("times", [trailing(6), [i / 6 for i in range(6)]])
def test_a_generation_begins_where_timesteps_turn_back(times: list[float]) -> None:
    calls = clocked(times * 3)
    assert [call.step for call in calls] == [1, 2, 3, 4, 5, 6] * 3
    assert [call.first_in_generation for call in calls] == [True, *[False] * 5] * 3


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_generation_begins_with_its_first_timestep(steps: int) -> None:
    calls = clocked(trailing(steps) * 3)
    assert [call.first_in_generation for call in calls] == [True, *[False] * (steps - 1)] * 3


def test_two_calls_at_one_timestep_are_no_new_generation() -> None:
    """A second-order solver (Heun) repeats all timesteps but the first and the last."""
    times = [1000.0, *(t for t in trailing(8)[1:] for _ in range(2))]
    calls = clocked(times * 2)
    begins = [index for index, call in enumerate(calls) if call.first_in_generation]
    assert begins == [0, len(times)]


def shifted(steps: int, shift: float) -> list[float]:
    """Flow matching's timesteps, as Wan and HunyuanVideo shift them."""
    parts = [(steps - i) / steps for i in range(steps)]
    return [1000 * shift * part / (1 + (shift - 1) * part) for part in parts]


@pytest.mark.parametrize("steps, shift", [(20, 3), (20, 5), (30, 3), (30, 5), (30, 7), (50, 7)])
def test_the_last_two_of_shifted_steps(steps: int, shift: float) -> None:
    near = [call.step for call in clocked(shifted(steps, shift)) if call.near_end]
    assert near[-2:] == [steps - 1, steps] and near[0] >= 0.8 * steps


def test_two_calls_a_step() -> None:
    calls = clocked([time for time in trailing(4) for _ in range(2)] * 2, calls_per_step=2)
    assert [call.step for call in calls] == [1, 1, 2, 2, 3, 3, 4, 4] * 2
    assert [call.branch for call in calls] == ["0", "1"] * 8


def test_timesteps_that_can_be_read_without_waiting() -> None:
    assert readable_time({"timestep": torch.tensor([900, 930])}) == 915
    assert readable_time({"t": 0.5}) == 0.5
    assert readable_time({"timestep": torch.ones(1, device="meta")}) is None
    assert readable_time({"x": 3}) is None


def test_a_model_reuses_and_protects_its_end() -> None:
    model = ak.patch(wan(), codebook=EVERY_THIRD)
    with pytest.warns(ak.AdaCacheWarning, match=r"is not known.*50 steps.*timesteps on the CPU"):
        for index, time in enumerate(trailing(14)):
            call(model, torch.tensor([time]), index)
    summary = ak.summary(model)
    assert summary.computed_steps == [1, 2, 5, 8, 11, 13, 14][: len(summary.computed_steps)]
    assert {13, 14} <= set(summary.computed_steps) and len(summary.reused_steps) >= 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs = [call(model, torch.tensor([time]), 7) for time in trailing(5)]
    assert ak.summary(model).computed_steps[:2] == [1, 2]
    ak.unpatch(model)
    assert torch.equal(outputs[0], call(model, torch.tensor([1000.0]), 7))


def test_timesteps_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count goes on, as with timesteps on a device, until `reset` begins a generation."""
    monkeypatch.setattr(
        "adacache_kernels.engine.clocks.timestep_clock.readable_time", lambda arguments: None
    )
    model = ak.patch(wan(), codebook=EVERY_THIRD)
    with pytest.warns(ak.AdaCacheWarning, match=r"would wait for it.*call ak\.reset\(model\)"):
        for index in range(8):
            call(model, torch.tensor([900.0 - index]), index)
    assert ak.summary(model).computed_steps == [1, 2, 5, 8]
    ak.reset(model)
    first = call(model, torch.tensor([900.0]), 3)
    assert ak.summary(model).computed_steps == [1]
    ak.unpatch(model)
    assert torch.equal(first, call(model, torch.tensor([900.0]), 3))


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"schedule": (1, 2, 3)}, "schedule needs the number of steps"),
        ({"forecast": 1, "forecast_time": "sigma"}, "forecast_time needs the number of steps"),
        (
            {"profile": str(PROFILES / "50.json"), "forecast": 1, "computed_steps": 9},
            "profile needs",
        ),
        ({"decision": "graph"}, 'decision="graph" needs the number of steps'),
    ],
)
def test_settings_that_need_the_number_of_steps(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ak.patch(wan(), **settings)
