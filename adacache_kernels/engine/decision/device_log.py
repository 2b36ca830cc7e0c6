"""Record on the device what it chose in each step, and read the record when it is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ... import ops
from ...schedule import Decision
from .decider import decision_of


@dataclass(frozen=True)
class DeviceLog:
    """The choices of the device in one generation, as the host has read them.

    Args:
        computed: the steps that ran the blocks.
        reused: the steps that added residuals.
        decisions: the decision of each computed step that has one.
    """

    computed: list[int]
    reused: list[int]
    decisions: dict[int, Decision]


class LogOnDevice:
    """The choices of the device in one generation, in device memory.

    Args:
        num_steps: the number of steps of the generation.
        device: the device that chooses.
    """

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self.device = device
        self._last = 0
        with torch.inference_mode(False):
            self._computes = torch.zeros(num_steps + 1, dtype=torch.int32, device=device)
            self._states = torch.zeros(num_steps + 1, len(ops.State), device=device)

    def record_state(self, step: int, state: Tensor) -> None:
        """Copy the decide op's state, float32 `[10]`, as it is at the end of `step`."""
        self._states[step].copy_(state)

    def record_choice(self, step: int, flags: Tensor) -> None:
        """Copy the choice for `step`: int32 `[2]`, compute and reuse."""
        self._last = step
        self._computes[step].copy_(flags[0])

    def record_computed(self) -> None:
        """Note that the present step runs the blocks, whatever the device chose."""
        self._computes[self._last].fill_(1)

    def read(self, state: Tensor) -> DeviceLog:
        """Return the log so far; the host waits for the device.

        Args:
            state: the decide op's state, float32 `[10]`, as it is now.
        """
        self.record_state(self._last, state)
        computes, states = self._computes.tolist(), self._states.tolist()
        steps = range(1, self._last + 1)
        decisions = {
            step: decision_of(states[step])
            for step in steps
            if computes[step] and states[step][ops.State.STEP] == step
        }
        return DeviceLog(
            [step for step in steps if computes[step]],
            [step for step in steps if not computes[step]],
            decisions,
        )
