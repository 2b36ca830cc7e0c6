"""DLPack capsules of the compiled arena's slots, read field by field."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adacache_kernels import _native

_C: Any = _native.module()
SIZE = 1000
CPU = (1, 0)


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    _fields_ = [
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


api = ctypes.pythonapi
api.PyCapsule_GetName.argtypes = [ctypes.py_object]
api.PyCapsule_GetName.restype = ctypes.c_char_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}


def consume(capsule: object) -> Managed | Versioned:
    """Take over what a capsule owns, as another library does."""
    name = api.PyCapsule_GetName(capsule)
    kind = Versioned if name == b"dltensor_versioned" else Managed
    handle = kind.from_address(api.PyCapsule_GetPointer(capsule, name))
    api.PyCapsule_SetName(capsule, USED[name])
    return handle


@pytest.fixture
def arena() -> Any:
    return _C.Arena("cpu", 0, 1 << 20, 1 << 12)


def only_slot(arena: Any) -> Any:
    """Return a slot without a lease: memory is mapped for the slot only."""
    return arena.lease().grow([SIZE], stream=0)[0]


def mapped(arena: Any) -> int:
    gc.collect()
    return arena.stats()["mapped"]


@pytest.mark.parametrize(
    ("max_version", "name"),
    [
        (None, b"dltensor"),
        ((0, 8), b"dltensor"),
        ((1, 0), b"dltensor_versioned"),
        ((1, 3), b"dltensor_versioned"),
        ((2, 0), b"dltensor_versioned"),
    ],
)
def test_fields(arena: Any, max_version: tuple[int, int] | None, name: bytes) -> None:
    slot = only_slot(arena)
    capsule = slot.__dlpack__(max_version=max_version)
    assert api.PyCapsule_GetName(capsule) == name
    handle = consume(capsule)
    tensor = handle.tensor
    assert (tensor.data, tensor.byte_offset) == (slot.address, 0)
    assert (tensor.device_type, tensor.device_id) == slot.__dlpack_device__() == CPU
    assert (tensor.code, tensor.bits, tensor.lanes) == (1, 8, 1)  # uint8
    assert (tensor.ndim, tensor.shape[0], tensor.strides[0]) == (1, slot.bytes, 1)
    assert slot.bytes == SIZE
    if isinstance(handle, Versioned):
        assert (handle.major, handle.minor, handle.flags) == (1, 0, 0)
    handle.deleter(ctypes.addressof(handle))


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_consumed_capsule_leaves_the_memory_to_its_consumer(
    arena: Any, max_version: tuple[int, int] | None
) -> None:
    slot = only_slot(arena)
    address = slot.address
    capsule = slot.__dlpack__(max_version=max_version)
    handle = consume(capsule)
    del capsule, slot
    assert mapped(arena) > 0
    ctypes.memset(address, 7, SIZE)
    assert ctypes.string_at(address, SIZE) == b"\7" * SIZE
    handle.deleter(ctypes.addressof(handle))
    assert mapped(arena) == 0


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_capsule_that_nobody_consumes_frees(
    arena: Any, max_version: tuple[int, int] | None
) -> None:
    slot = only_slot(arena)
    capsule = slot.__dlpack__(max_version=max_version)
    del slot
    assert mapped(arena) > 0
    del capsule
    assert mapped(arena) == 0


def test_capsules_of_one_slot_are_independent(arena: Any) -> None:
    slot = only_slot(arena)
    first, second = slot.__dlpack__(), slot.__dlpack__(max_version=(1, 0))
    handle = consume(first)
    handle.deleter(ctypes.addressof(handle))
    del first, slot
    assert mapped(arena) > 0
    del second
    assert mapped(arena) == 0


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_deleter_needs_no_interpreter(arena: Any, max_version: tuple[int, int] | None) -> None:
    """The deleter runs in a thread that Python does not know, without the GIL."""
    slot = only_slot(arena)
    handle = consume(slot.__dlpack__(max_version=max_version))
    del slot
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    deleter = ctypes.cast(handle.deleter, ctypes.c_void_p)
    argument = ctypes.c_void_p(ctypes.addressof(handle))
    assert libc.pthread_create(ctypes.byref(thread), None, deleter, argument) == 0
    assert libc.pthread_join(thread, None) == 0
    assert mapped(arena) == 0


@pytest.mark.parametrize("stream", [None, -1, 0, 1, 2, 12345])
def test_every_stream_and_later_argument_is_accepted(arena: Any, stream: int | None) -> None:
    slot = only_slot(arena)
    capsule = slot.__dlpack__(stream=stream, dl_device=CPU, copy=False, something_of_dlpack_2=3)
    assert api.PyCapsule_GetName(capsule) == b"dltensor"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"copy": True}, "copy=True is not possible"), ({"dl_device": (2, 0)}, "stays on its device")],
)
def test_unsupported_arguments(arena: Any, arguments: dict[str, Any], message: str) -> None:
    slot = only_slot(arena)
    with pytest.raises(BufferError, match=message):
        slot.__dlpack__(**arguments)


def test_arguments_are_by_name(arena: Any) -> None:
    slot = only_slot(arena)
    with pytest.raises(TypeError):
        slot.__dlpack__(None)


@pytest.mark.parametrize("consumer", [np.from_dlpack, torch.from_dlpack])
def test_consumers_share_the_memory(arena: Any, consumer: Callable[[object], Any]) -> None:
    slot = only_slot(arena)
    address = slot.address
    array = consumer(slot)
    view = array[10:20]
    del slot, array
    view[:] = 3
    assert ctypes.string_at(address + 10, 10) == b"\3" * 10
    del view
    assert mapped(arena) == 0


def test_numpy_may_write(arena: Any) -> None:
    slot = only_slot(arena)
    assert np.from_dlpack(slot).flags.writeable


def test_empty_slot(arena: Any) -> None:
    (slot,) = arena.lease().grow([0], stream=0)
    assert torch.from_dlpack(slot).shape == (0,)
    assert np.from_dlpack(slot).shape == (0,)


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "Arena": lambda arena, lease: _C.Arena("cpu", 0, 1 << 20, 1 << 12),
    "lease": lambda arena, lease: arena.lease(),
    "stats": lambda arena, lease: arena.stats(),
    "grow": lambda arena, lease: lease.grow([], stream=0),
    "replan": lambda arena, lease: lease.replan([100], stream=0),
    "release": lambda arena, lease: lease.release(stream=0),
    "acquire": lambda arena, lease: lease.acquire(stream=0),
    "mark": lambda arena, lease: lease.mark(stream=0),
    "close": lambda arena, lease: arena.close(stream=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_threads_run_during_calls(arena: Any, name: str) -> None:
    lease = arena.lease()
    assert gives_up_the_gil(lambda: CALLS[name](arena, lease))


def test_other_threads_run_while_capsules_are_freed(arena: Any) -> None:
    (slot,) = arena.lease().grow([1], stream=0)
    assert gives_up_the_gil(lambda: [slot.__dlpack__() for _ in range(100)])


def test_other_threads_run_while_slots_are_freed() -> None:
    """Each slot is freed once, so the other thread may miss its chance: ten attempts."""
    count = 200_000
    for _ in range(10):
        arena = _C.Arena("cpu", 0, 256 * count, 1)
        slots = arena.lease().grow([1] * count, stream=0)
        if gives_up_the_gil(lambda slots=slots: slots.__delitem__(slice(-100, None)), 0.1):
            return
    raise AssertionError("no other thread ran")


def test_the_test_of_the_gil() -> None:
    assert not gives_up_the_gil(lambda: sum(range(100)), seconds=0.5)


def gives_up_the_gil(call: Callable[[], object], seconds: float = 20) -> bool:
    """Return True if another thread gets the GIL while `call` runs again and again."""
    ready, ran = threading.Lock(), []
    ready.acquire()

    def run() -> None:
        with ready:
            ran.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # Python does not switch threads by itself.
    try:
        ready.release()
        end = time.perf_counter() + seconds
        while not ran and time.perf_counter() < end:
            call()
        return bool(ran)
    finally:
        sys.setswitchinterval(before)
        thread.join()
