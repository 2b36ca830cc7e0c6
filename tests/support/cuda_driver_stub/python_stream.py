"""A stream of the driver stub whose work is Python, and tensors in its device memory.

For processes that have tests/support/cuda_driver_stub in their LD_LIBRARY_PATH.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.cuda_driver_stub.emulated_device import FakeDevice

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_kept: list[Any] = []  # The driver may call them until the process ends.


class FakeStream:
    """A stream that does its work in order, at the driver's pace."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.handle = device.stream()

    def put(self, run: Callable[[], None]) -> None:
        put_on(self._device, self.handle, run)

    def dawdle(self) -> None:
        """Put work on the stream that ends only when something waits for it."""
        self._device.driver.fakecuda_work(ctypes.c_void_p(self.handle))

    def wait(self) -> None:
        self._device.synchronize(self.handle)


def put_on(device: FakeDevice, stream: int, run: Callable[[], None]) -> None:
    """Put `run` on a stream as work, or into its capture as a node of the graph."""
    function = HOST_FUNCTION(lambda _: run())
    _kept.append(function)
    device.call("cuLaunchHostFunc", ctypes.c_void_p(stream), function, None)


def tensor_on(device: FakeDevice, like: Tensor) -> Tensor:
    """Return a copy of the tensor in device memory."""
    raw = like.contiguous().view(torch.uint8).numpy()
    return torch.from_numpy(device.array(raw, np.uint8)).view(like.dtype).view(like.shape)
