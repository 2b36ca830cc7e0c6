"""Refuse blocks that lie on several devices of one process, as with accelerate's `device_map`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .rank_groups import attribute


def check_one_device(model: str, blocks: Iterable[nn.Module]) -> None:
    """Refuse blocks that run on several accelerators.

    A residual is the difference of two streams on different devices then, so every computed step
    would copy whole streams between devices.

    Args:
        model: the class of the model.
        blocks: its blocks.

    Raises:
        ValueError: the blocks run on several devices; the message names them.
    """
    indices = {index for block in blocks if (index := _index(block)) is not None}
    if len(indices) > 1:
        devices = ", ".join(map(str, sorted(indices)))
        raise ValueError(
            f"the blocks of this {model} lie on the devices {devices}, for example because of "
            "device_map= or dispatch_model(), and a residual needs the streams before and after "
            "them on one device: put all blocks on one device, with offloading if they do not fit, "
            "or use one process for each device with context parallelism or FSDP"
        )


def _index(block: nn.Module) -> int | None:
    """Return the index of the accelerator on which a block runs, None for a CPU."""
    hook = getattr(block, "_hf_hook", None)
    hooks = (hook, *(attribute(hook, "hooks") or ()))
    executes = [attribute(each, "execution_device") for each in hooks]
    device: Any = next((each for each in executes if each is not None), None)
    if device is None:
        device = next((parameter.device for parameter in block.parameters()), "cpu")
    # accelerate names a device by its index, too.
    return device if isinstance(device, int) else torch.device(device).index
