"""The compiled arena on a CUDA device, with the driver of tests/support/cuda_driver_stub.

LD_LIBRARY_PATH selects that driver, so each test runs a process of its own. The processes do not
import torch: a torch without CUDA has no tensors on such a device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.arenas import MIB, run_script

START = """
import ctypes
from tests.support import bare_native
native = bare_native.load()
MIB = 1 << 20

def arena(budget=256 * MIB, device=0):
    return native.Arena("cuda", device, budget, 32 * MIB)

def error(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as caught:
        assert type(caught) is kind, type(caught)
        return str(caught)
    raise AssertionError("nothing was raised")

def dltensor(capsule):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, b"dltensor")
"""

DRIVER = """
driver = ctypes.CDLL("libcuda.so.1")
driver.fakecuda_live.restype = ctypes.c_long
driver.fakecuda_errors.restype = ctypes.c_long
driver.fakecuda_set.argtypes = [ctypes.c_char_p] * 2

def live():
    kinds = "phys", "maps", "reservations", "allocs", "bytes", "events", "contexts"
    return {kind: n for kind in kinds if (n := driver.fakecuda_live(kind.encode()))}

class Capturing:
    def __enter__(self):
        context, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert driver.cuCtxPushCurrent_v2(context) == 0
        assert driver.cuStreamCreate(ctypes.byref(self.stream), 1) == 0
        assert driver.cuStreamBeginCapture_v2(self.stream, 0) == 0
        return self.stream.value
    def __exit__(self, *error):
        graph = ctypes.c_void_p()
        assert driver.cuStreamEndCapture(self.stream, ctypes.byref(graph)) == 0
        assert driver.cuGraphDestroy(graph) == 0
        assert driver.cuStreamDestroy_v2(self.stream) == 0
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(graph)) == 0
        assert driver.cuDevicePrimaryCtxRelease_v2(0) == 0
"""

END = """
assert driver.fakecuda_errors() == 0
print("ended well")
"""

Run = Callable[..., None]


@pytest.fixture
def run(driver: Path) -> Run:
    """Return a function that runs a script on the stub driver, with settings of the driver."""

    def on_stub(code: str, **settings: str) -> None:
        assert run_on(driver / "lib", START + DRIVER + code + END, **settings) == "ended well\n"

    return on_stub


def run_on(folder: Path, code: str, **settings: str) -> str:
    """Return what a script prints that loads the CUDA driver of a folder."""
    environment = {f"FAKECUDA_{name}": value for name, value in settings.items()}
    return run_script(code, LD_LIBRARY_PATH=str(folder), **environment)


def test_life(run: Run) -> None:
    code = """
made = arena()
lease = made.lease()
slots = lease.grow([1000, 5 * MIB], stream=0)
for value, slot in enumerate(slots, 1): ctypes.memset(slot.address, value, slot.bytes)
slots += lease.grow([40 * MIB], stream=0)
for value, slot in enumerate(slots[:2], 1):
    assert ctypes.string_at(slot.address, slot.bytes) == bytes([value]) * slot.bytes
    assert slot.address % 256 == 0 and slot.__dlpack_device__() == (2, 0)
now = made.stats()
assert now["is_virtual"] and now["why_not_virtual"] == ""
assert (now["chunks"], now["slots"], now["mapped"]) == (2, 3, 46 * MIB), now
assert now["reserved"] >= now["budget"] == 256 * MIB
assert live()["bytes"] == 46 * MIB
lease.mark(stream=0)
lease.acquire(stream=0)
lease.release(stream=0)
assert made.stats()["mapped"] == 46 * MIB
del slots, slot
assert made.stats()["mapped"] == 46 * MIB  # Until the next call that passes a stream.
lease.release(stream=0)
assert made.stats()["mapped"] == 0
del lease, made
assert live() == {}
"""
    run(code)


@pytest.mark.parametrize("device", [0, 1])
def test_capsules_name_the_device(run: Run, device: int) -> None:
    """A DLManagedTensor begins with the address, the device type and the device number."""
    code = f"""
(slot,) = arena(device={device}).lease().grow([7], stream=0)
for stream in (None, 1, 2, 12345):
    capsule = slot.__dlpack__(stream=stream, dl_device=(2, {device}))
    tensor = dltensor(capsule)
    assert ctypes.c_uint64.from_address(tensor).value == slot.address
    assert tuple((ctypes.c_int32 * 2).from_address(tensor + 8)) == (2, {device})
assert driver.fakecuda_calls(b"cuStreamSynchronize") == driver.fakecuda_calls(b"cuCtxSynchronize")
assert driver.fakecuda_calls(b"cuCtxSynchronize") == 0
del slot, capsule
assert live() == {{}}
"""
    run(code, DEVICES="2")


def test_capture(run: Run) -> None:
    code = """
lease = arena().lease()
slots = lease.grow([100], stream=0)
with Capturing() as stream:
    slots += lease.grow([100], stream=stream)
    slots[0].__dlpack__(stream=stream)
    for call in (lease.grow, lease.replan):
        message = error(native.CaptureError, call, [3 * MIB], stream=stream)
        assert "before the capture" in message, message
    error(native.CaptureError, lease.release, stream=stream)
assert lease.grow([3 * MIB], stream=0)
"""
    run(code)


def test_slots_that_are_dropped_during_a_capture_do_not_break_it(run: Run) -> None:
    code = """
made = arena()
lease = made.lease()
(slot,) = lease.grow([100], stream=0)
lease.release(stream=0)
with Capturing() as stream:
    del slot
other = made.lease()
slots = other.grow([1], stream=0)
assert made.stats()["mapped"] == 2 * MIB
del other, slots
made.close(stream=0)
assert made.stats()["mapped"] == 0
"""
    run(code)


def test_device_without_memory(run: Run) -> None:
    code = """
made = arena(budget=1024 * MIB)
lease = made.lease()
slots = lease.grow([32 * MIB], stream=0)
message = error(native.OutOfMemory, lease.grow, [40 * MIB], stream=0)
for part in ("cuMemCreate", "CUDA_ERROR_OUT_OF_MEMORY", str(40 * MIB), str(1024 * MIB)):
    assert part in message, message
assert made.stats()["failures"] == 1 and made.stats()["mapped"] == 32 * MIB
assert "budget" in error(native.OverBudget, lease.grow, [1024 * MIB], stream=0)
assert lease.grow([8 * MIB], stream=0)
"""
    run(code, MEM=str(64 * MIB))


@pytest.mark.parametrize("call", ["cuMemCreate", "cuMemMap", "cuMemSetAccess"])
def test_call_that_fails_once(run: Run, call: str) -> None:
    code = f"""
made = arena()
lease = made.lease()
message = error(native.ArenaError, lease.grow, [100], stream=0)
assert "{call}" in message and "CUDA_ERROR_INVALID_VALUE" in message, message
assert made.stats()["mapped"] == 0
assert lease.grow([100], stream=0)
del lease, made
assert live() == {{}}
"""
    # A new arena may try a call out, so the fault begins later.
    fault = f'driver.fakecuda_reset(); driver.fakecuda_set(b"FAIL", b"{call}:1=1")'
    run(code.replace("lease = made.lease()", f"lease = made.lease(); {fault}", 1))


def test_device_without_virtual_memory(run: Run) -> None:
    code = """
made = arena()
(slot,) = made.lease().grow([100], stream=0)
ctypes.memset(slot.address, 1, 100)
now = made.stats()
assert not now["is_virtual"] and now["why_not_virtual"] and now["reserved"] == 0, now
del slot, made
assert live() == {}
"""
    run(code, VMM="0")


def test_device_that_is_not_there(run: Run) -> None:
    run('message = error(native.ArenaError, arena, device=5); assert "5" in message, message')


def test_deleter_in_another_thread_after_everything_else(run: Run) -> None:
    code = """
capsule = arena().lease().grow([7], stream=0)[0].__dlpack__()
tensor = dltensor(capsule)
used = ctypes.c_char_p(b"used_dltensor")
ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), used)
del capsule
assert live()
deleter = ctypes.c_void_p.from_address(tensor + 56)
thread = ctypes.c_ulong()
libc = ctypes.CDLL(None)
assert libc.pthread_create(ctypes.byref(thread), None, deleter, ctypes.c_void_p(tensor)) == 0
assert libc.pthread_join(thread, None) == 0
assert live() == {}
"""
    run(code)


def test_interpreter_exits_with_everything_in_use(run: Run) -> None:
    run("made = arena(); lease = made.lease(); slots = lease.grow([100], stream=0)")


def test_forked_child_leaves_everything(run: Run) -> None:
    code = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
made = arena()
lease = made.lease()
(slot,) = lease.grow([100], stream=0)
before = live()
child = os.fork()
if child == 0:
    error(native.ArenaError, lease.grow, [100], stream=0)
    del slot, lease, made
    os._exit(live() != before)
assert os.waitpid(child, 0)[1] == 0
assert lease.grow([3 * MIB], stream=0)
"""
    run(code)


@pytest.mark.parametrize(
    ("settings", "line"),
    [({}, "yes"), ({"VMM": "0"}, "no: .")],
)
def test_info_reports_virtual_memory(driver: Path, settings: dict[str, str], line: str) -> None:
    code = "import re; from adacache_kernels.cli import info; "
    code += f"print(re.fullmatch({line + '*'!r}, info.describe()['virtual memory']) is not None)"
    assert run_on(driver / "lib", code, **settings) == "True\n"


def test_old_driver(driver: Path) -> None:
    code = "made = arena(); made.lease().grow([5], stream=0); now = made.stats(); print(now)"
    assert "'is_virtual': False" in run_on(driver / "old", START + code)


def test_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    code = 'message = error(native.ArenaError, arena); print("libcuda.so.1" in message, message)'
    printed = run_on(tmp_path, START + code)
    assert printed.startswith("True"), printed
