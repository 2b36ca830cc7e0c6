"""What must stay the same from call to call for a residual to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def signature_of(arguments: Mapping[str, Any]) -> object:
    """What must stay the same for a residual to fit: shapes, dtypes, devices, switches."""
    return tuple((name, _trait(value)) for name, value in sorted(arguments.items()))


def device_of(arguments: Mapping[str, Any]) -> torch.device:
    """Where the first tensor is that is not on the CPU, as timesteps may be; else the CPU."""
    devices = [value.device for value in arguments.values() if isinstance(value, Tensor)]
    elsewhere = (device for device in devices if device.type != "cpu")
    return next(elsewhere, torch.device("cpu"))


def _trait(value: object) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, list | tuple):
        return tuple(map(_trait, value))
    if isinstance(value, Mapping):
        return signature_of(value)
    # Numbers are left out: a timestep may be one, and changes with every step.
    return value if isinstance(value, bool | str) else type(value)
