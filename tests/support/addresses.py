"""Tiny models at other addresses: a product may round by where its matrices begin.

With ADACACHE_TEST_SHIFT_BYTES=8, every second model of a test lies 8 bytes past the allocator's
alignment. Parameters that are mapped from a file may lie so, too.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

SHIFT = int(os.environ.get("ADACACHE_TEST_SHIFT_BYTES", "0"))
_built = [0]


def begin() -> None:
    """Let the next model be a test's first, which is not moved."""
    _built[0] = 0


def moved(model: nn.Module) -> nn.Module:
    """Return the model, its parameters moved if it is a test's second, fourth, and so on."""
    _built[0] += 1
    if SHIFT and _built[0] % 2 == 0:
        for parameter in model.parameters():
            parameter.data = shifted(parameter.data, SHIFT)
    return model


def shifted(tensor: Tensor, shift: int) -> Tensor:
    """Return a copy that begins that many bytes past the allocator's alignment."""
    size = tensor.element_size()
    assert shift % size == 0, f"{tensor.dtype} cannot begin {shift} bytes later"
    first = shift // size
    buffer = torch.empty(first + tensor.numel(), dtype=tensor.dtype)
    return buffer[first:].view(tensor.shape).copy_(tensor)
