"""The device of the driver stub, for scripts that run on it; its kernels are emulated PTX."""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.support.ptx_emulator.instructions.calls import EXTERNALS
from tests.support.ptx_emulator.machine import Kernel, launch, load_kernel
from tests.support.ptx_emulator.memory import GlobalMemory
from tests.support.ptx_emulator.ptx_types import UNSIGNED, WIDTH

DESCRIBE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.c_int,
)
LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_int,
)
NON_BLOCKING = 1
RELAXED = 2


class FakeDevice:
    """Device 0, with its context current in this thread."""

    def __init__(self) -> None:
        """Make the emulator run all kernels from now on."""
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.ran: list[str] = []
        self._memory = GlobalMemory()
        self._kernels: list[Kernel] = []
        self._callbacks = DESCRIBE(self._describe), LAUNCH(self._launch)
        self.driver.fakecuda_set_callbacks(*self._callbacks)
        for name in ("fakecuda_live", "fakecuda_waits", "fakecuda_errors"):
            getattr(self.driver, name).restype = ctypes.c_long
        self.driver.fakecuda_last_error.restype = ctypes.c_char_p
        EXTERNALS["cudaGraphSetConditional"] = self._set_conditional
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxPushCurrent_v2", context)

    def call(self, function: str, *arguments: Any) -> None:
        """Call the driver; the call has to succeed."""
        code = getattr(self.driver, function)(*arguments)
        assert code == 0, (function, code, self.driver.fakecuda_last_error())

    def array(self, values: Any, dtype: type) -> np.ndarray:
        """Return device memory with these values; the host may read and write it."""
        source, address = np.asarray(values, dtype), ctypes.c_void_p()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(source.nbytes))
        assert address.value is not None
        piece = (ctypes.c_char * source.nbytes).from_address(address.value)
        array = np.frombuffer(piece, dtype)
        array[:] = source
        self._memory.add_at(address.value, array)
        return array

    def set_pace(self, pace: str) -> None:
        """Set when work is done: "fast", "slow" or "random:seed"."""
        self.driver.fakecuda_set(b"PACE", pace.encode())

    def adopt(self, array: np.ndarray) -> None:
        """Let kernels use memory of the host."""
        self._memory.add_at(array.ctypes.data, array)

    def stream(self) -> int:
        """Return a new stream that does not wait for the legacy one."""
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), NON_BLOCKING)
        assert stream.value is not None
        return stream.value

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def kernel(self, ptx: str, name: str) -> ctypes.c_void_p:
        """Return a kernel of a module, which stays loaded."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ptx.encode())
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(
        self, kernel: ctypes.c_void_p, stream: int, threads: int, *arrays: np.ndarray
    ) -> None:
        """Launch one block of a kernel that takes addresses."""
        addresses = [ctypes.c_uint64(array.ctypes.data) for array in arrays]
        pointers = [ctypes.cast(ctypes.byref(a), ctypes.c_void_p) for a in addresses]
        parameters = (ctypes.c_void_p * len(arrays))(*pointers)
        shape = 1, 1, 1, threads, 1, 1, 0
        self.call("cuLaunchKernel", kernel, *shape, ctypes.c_void_p(stream), parameters, None)

    @contextmanager
    def captured(self) -> Iterator[tuple[int, list[int]]]:
        """Yield a stream for work, and a list that holds the handle of the graph at the end."""
        stream, graph, graphs = self.stream(), ctypes.c_void_p(), []
        self.call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), RELAXED)
        yield stream, graphs
        self.call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        assert graph.value is not None
        graphs.append(graph.value)

    def _describe(self, number: int, image: bytes, name: bytes, sizes: Any, most: int) -> int:
        try:
            kernel = load_kernel(image.decode(), name.decode())
        except Exception:
            traceback.print_exc()
            return -1
        assert number == len(self._kernels) and len(kernel.parameters) <= most
        self._kernels.append(kernel)
        for index, parameter in enumerate(kernel.parameters):
            sizes[index] = WIDTH[parameter.ptx_type] // 8
        return len(kernel.parameters)

    def _launch(self, number: int, dimensions: Any, pointers: Any, count: int) -> int:
        try:
            kernel = self._kernels[number]
            arguments = [
                _value(pointers[index], WIDTH[parameter.ptx_type])
                for index, parameter in enumerate(kernel.parameters[:count])
            ]
            grid, threads = tuple(dimensions[:3]), int(np.prod(dimensions[3:6]))
            launch(kernel, grid, threads, arguments, self._memory, shared=dimensions[6])
            self.ran.append(kernel.name)
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    def _set_conditional(self, handle: int, value: int) -> None:
        self.call("fakecuda_set_conditional", ctypes.c_uint64(handle), ctypes.c_uint(value))


def _value(pointer: int, width: int) -> Any:
    return np.frombuffer(ctypes.string_at(pointer, width // 8), UNSIGNED[width])[0]
