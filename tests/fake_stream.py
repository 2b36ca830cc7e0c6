"""A stream of the fake driver from Python: memory, work in stream order, captured graphs.

For processes that have tests/fakecuda in their LD_LIBRARY_PATH.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

NON_BLOCKING = 1
RELAXED = 2
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def load_driver() -> ctypes.CDLL:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.fakecuda_live.restype = ctypes.c_long
    driver.fakecuda_errors.restype = driver.fakecuda_waits.restype = ctypes.c_long
    driver.fakecuda_last_error.restype = ctypes.c_char_p
    driver.fakecuda_set.argtypes = [ctypes.c_char_p] * 2
    return driver


class FakeDevice:
    """Device 0 with its context current, and memory that both the host and the device can use."""

    def __init__(self) -> None:
        self.driver = load_driver()
        self.context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)
        self.call("cuCtxPushCurrent_v2", self.context)
        self._kept: list[Any] = []

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.driver, name)(*arguments)
        assert code == 0, f"{name} returned {code}: {self.driver.fakecuda_last_error()!r}"

    def set(self, name: str, value: str) -> None:
        self.driver.fakecuda_set(name.encode(), value.encode())

    def live(self, kind: str) -> int:
        return int(self.driver.fakecuda_live(kind.encode()))

    def tensor(self, like: Tensor) -> Tensor:
        """A copy in device memory, never given back."""
        address = ctypes.c_size_t()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, like.nbytes)))
        memory = (ctypes.c_char * max(1, like.nbytes)).from_address(address.value)
        placed = torch.from_numpy(np.frombuffer(memory, np.uint8)[: like.nbytes])
        return placed.view(like.dtype).view(like.shape).copy_(like)

    def stream(self) -> FakeStream:
        return FakeStream(self)

    def host_function(self, run: Callable[[], None]) -> Any:
        """For the driver to call, any number of times."""
        made = HOST_FUNCTION(lambda _: run())
        self._kept.append(made)
        return made


class FakeStream:
    """Does its work in order, when the driver's pace lets it."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._handle = ctypes.c_void_p()
        device.call("cuStreamCreate", ctypes.byref(self._handle), NON_BLOCKING)

    @property
    def handle(self) -> int:
        assert self._handle.value is not None
        return self._handle.value

    def put(self, run: Callable[[], None]) -> None:
        function = self._device.host_function(run)
        self._device.call("cuLaunchHostFunc", self._handle, function, None)

    def dawdle(self) -> None:
        """Some work that does not end before something waits for it."""
        self._device.driver.fakecuda_work(self._handle)

    def wait(self) -> None:
        self._device.call("cuStreamSynchronize", self._handle)

    def capture(self, run: Callable[[], None]) -> int:
        """The graph that `run` puts on the stream."""
        graph = ctypes.c_void_p()
        self._device.call("cuStreamBeginCapture_v2", self._handle, RELAXED)
        run()
        self._device.call("cuStreamEndCapture", self._handle, ctypes.byref(graph))
        assert graph.value is not None
        return graph.value
