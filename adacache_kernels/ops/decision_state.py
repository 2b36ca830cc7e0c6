"""The tensors that `decide` and `begin_step` keep on the device for one guidance branch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.state_fields import Flag, State, StepState

__all__ = ["SEQUENCES", "Flag", "State", "StepState", "new_state", "new_step_state", "reset_state"]

SEQUENCES = 1 << 24
"""The number of sequence numbers: float32 represents the integers below it exactly."""


def new_state(device: torch.device | str) -> Tensor:
    """Return the state `[10]` at the start of a generation, see :class:`State`.

    No step is computed yet, and the first step is the next computed one.
    """
    state = torch.zeros(len(State), device=device)
    reset_state(state)
    return state


def reset_state(state: Tensor) -> None:
    """Set a state `[10]` to the start of a generation, in place.

    The device writes the values itself; a copy from ordinary host memory would make the host wait.
    """
    state.zero_()
    state[State.MOTION : State.PREVIOUS_MOTION + 1].fill_(1.0)
    state[State.DISTANCE].fill_(torch.nan)
    state[State.RAW_DISTANCE].fill_(torch.nan)


def new_step_state(device: torch.device | str) -> Tensor:
    """Return the clock `[3]` of `begin_step` before the first step, see :class:`StepState`."""
    return torch.zeros(len(StepState), device=device)
