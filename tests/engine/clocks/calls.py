"""A scheduler without arithmetic, and calls of a clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from adacache_kernels.engine.cache_context import NamedCall
from adacache_kernels.engine.clocks.clock import Call
from adacache_kernels.engine.clocks.scheduler_watch import SchedulerWatch
from adacache_kernels.engine.clocks.step_clock import StepClock
from adacache_kernels.engine.evidence.call_evidence import CallEvidence


class Scheduler:
    """The part of a diffusers scheduler that the clock uses."""

    def __init__(self) -> None:
        self.timesteps = torch.zeros(0)
        self.steps = 0

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        self.timesteps = torch.linspace(1000, 0, num_inference_steps + 1)[:-1].clone()

    def step(self, sample: int, generator: object = None) -> int:
        self.steps += 1
        return sample + 1


def pipeline() -> Any:
    return SimpleNamespace(scheduler=Scheduler())


def watching(pipe: Any) -> StepClock:
    return StepClock(watch=SchedulerWatch(pipe))


def call(
    clock: StepClock,
    name: str | None = None,
    timestep: object = None,
    text: Tensor | None = None,
    **named: Any,
) -> Call:
    """Return step and branch of a call; without a timestep, nothing but the scheduler shows it."""
    arguments: dict[str, Any] = {"hidden_states": torch.zeros(1), "text": text}
    if timestep is not None:
        arguments["timestep"] = timestep
    context = None if name is None else NamedCall(name, **named)
    return clock.next_call(CallEvidence.of(context, arguments))[1]


def places(calls: list[Call]) -> list[tuple[int, str]]:
    return [(call.step, call.branch) for call in calls]
