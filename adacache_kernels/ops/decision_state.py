"""The state of the decide op: what it knows of one branch of guidance, on the device."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

SEQUENCES = 1 << 24
"""Numbers of decisions: what float32 tells apart."""


class State(IntEnum):
    """Where each value lies in the float32 state of `decide`."""

    SEQUENCE = 0
    """Number of the decision, as its caller counts; the same as `SEQUENCE_AGAIN`."""
    STEP = 1
    """The last computed step; 0 before the first."""
    DISTANCE = 2
    """Its distance, motion regularisation included; NaN if there is none."""
    MOTION = 3
    """Its motion score; 1 outside the window."""
    RATE = 4
    """How many steps after it the next computed step comes."""
    NEXT_STEP = 5
    """The next computed step."""
    PREVIOUS_MOTION = 6
    """The motion score that the next one is compared with."""
    FLAGS = 7
    """0, or a :class:`Flag`: why there is no rate from the codebook."""
    RAW_DISTANCE = 8
    """The distance without motion regularisation."""
    SEQUENCE_AGAIN = 9
    """At both ends, so that a copy that holds two decisions in part is told from one."""


class Flag(IntEnum):
    """Why a computed step got the rate 1 without a look at the codebook."""

    NO_PREVIOUS = 1
    """No residual was stored before."""
    NOT_FINITE = 2
    """The distance is NaN or infinite."""
    ZERO_DENOMINATOR = 4
    """A sum that is divided by is zero, or the step does not come after the last computed one."""


def new_state(device: torch.device | str) -> Tensor:
    """The state at the start of a generation: no step computed yet, the first one is next."""
    state = torch.zeros(len(State), device=device)
    reset_state(state)
    return state


def reset_state(state: Tensor) -> None:
    """As at the start of a generation; made on the device, for a copy from the host would wait."""
    state.zero_()
    state[State.MOTION : State.PREVIOUS_MOTION + 1].fill_(1.0)
    state[State.DISTANCE].fill_(torch.nan)
    state[State.RAW_DISTANCE].fill_(torch.nan)


class StepState(IntEnum):
    """Where each value lies in the float32 clock of `begin_step`."""

    STEP = 0
    """The step that has begun; 0 before the first."""
    HAS_PREVIOUS = 1
    """Whether an earlier step of the generation was computed."""
    IN_WINDOW = 2
    """Whether the step lies in the window of motion regularisation."""


def new_step_state(device: torch.device | str) -> Tensor:
    """The clock before the first step."""
    return torch.zeros(len(StepState), device=device)
