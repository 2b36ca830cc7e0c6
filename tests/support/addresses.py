"""Tiny models at other addresses, because the rounding of a product depends on them.

With ADACACHE_TEST_SHIFT_BYTES=8, the parameters of every second model of a test begin 8 bytes past
the allocator's alignment. Parameters that are mapped from a file may be unaligned as well.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

SHIFT = int(os.environ.get("ADACACHE_TEST_SHIFT_BYTES", "0"))
_built = [0]


def begin() -> None:
    """Count the next model as the first of a test, which is not moved."""
    _built[0] = 0


def moved(model: nn.Module) -> nn.Module:
    """Move the parameters of the second, fourth, ... model of a test; return the model."""
    _built[0] += 1
    if SHIFT and _built[0] % 2 == 0:
        for parameter in model.parameters():
            parameter.data = shifted(parameter.data, SHIFT)
    return model


def shifted(tensor: Tensor, shift: int) -> Tensor:
    """Return a copy that begins `shift` bytes past the allocator's alignment."""
    size = tensor.element_size()
    assert shift % size == 0, f"{tensor.dtype} cannot begin {shift} bytes later"
    first = shift // size
    buffer = torch.empty(first + tensor.numel(), dtype=tensor.dtype)
    return buffer[first:].view(tensor.shape).copy_(tensor)
