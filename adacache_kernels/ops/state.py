"""The state of the decide op: what it knows of one branch of guidance, on the device."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor


class State(IntEnum):
    """Where each value lies in the float32 state of `decide`."""

    STEP = 0
    """The last computed step."""
    DISTANCE = 1
    """Its distance, motion regularisation included; NaN if there is none."""
    MOTION = 2
    """Its motion score; 1 outside the window."""
    RATE = 3
    """How many steps after it the next computed step comes."""
    NEXT_STEP = 4
    """The next computed step."""
    PREVIOUS_MOTION = 5
    """The motion score that the next one is compared with."""
    FLAGS = 6
    """0, or a :class:`Flag`: why there is no rate from the codebook."""
    RAW_DISTANCE = 7
    """The distance without motion regularisation."""


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
    return torch.tensor([0.0, torch.nan, 1.0, 1.0, 1.0, 1.0, 0.0, torch.nan], device=device)
