"""Host arenas under limits of the process: of addresses, of open files, of system calls."""

from __future__ import annotations

import sys

import pytest

from tests.support.arenas import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

GENERATE = """
import resource, sys, torch
import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY, denoise
wan = TINY["wan"]

def generated():
    model = ak.patch(wan.build(), codebook={9.0: 2}, num_inference_steps=6)
    latents = denoise(wan, model, 6)[-1]
    assert ak.summary(model).reused_steps == [2, 4], ak.summary(model)
    return latents

expected = generated()
"""
ADDRESSES = """
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
def limit(spare):
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))
"""


@pytest.mark.parametrize("spare_mib", [256, 2048, 1 << 19])
def test_a_default_arena_under_a_limit_of_addresses(spare_mib: int) -> None:
    """Nothing is reserved in advance, so the rest of the process keeps its addresses."""
    code = f"""
limit({spare_mib} << 20)
assert torch.equal(generated(), expected)
arena = ak.CacheArena("cpu")
assert arena.stats().is_virtual and arena.stats().reserved == 0
lease = arena.lease()
a, b = lease.tensors([((1 << 20,), torch.uint8), ((5,), torch.float32)])
c, = lease.tensors([((1 << 21,), torch.uint8)])
a.fill_(1), b.fill_(2), c.fill_(3)
assert a.eq(1).all() and b.eq(2).all() and c.eq(3).all()
assert arena.stats().reserved == arena.stats().mapped
lease.release()
del a, b, c
assert arena.stats().reserved == arena.stats().mapped == 0
"""
    run_script(GENERATE + ADDRESSES + code)


def test_more_than_the_limit_is_an_error_and_the_arena_stays_usable() -> None:
    code = """
limit(512 << 20)
lease = ak.CacheArena("cpu").lease()
try:
    lease.tensors([((1 << 30,), torch.uint8)])
except torch.OutOfMemoryError as error:
    assert "ENOMEM" in str(error), error
else:
    raise AssertionError
assert lease.tensors([((100,), torch.uint8)])[0].fill_(1).sum() == 100
"""
    run_script(GENERATE + ADDRESSES + code)


def test_a_budget_of_more_addresses_than_there_are() -> None:
    code = """
arena = ak.CacheArena("cpu", 1 << 60)
assert arena.stats().is_virtual and arena.stats().reserved == 0
assert arena.lease().tensors([((100,), torch.uint8)])[0].fill_(1).sum() == 100
"""
    run_script(GENERATE + code)


def test_without_open_files_and_without_new_files() -> None:
    """An arena needs no descriptor, and no file that a limit of sizes would end by a signal."""
    code = """
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
assert torch.equal(generated(), expected)
assert ak.CacheArena("cpu").stats().is_virtual
"""
    run_script(GENERATE + code)


# A filter that refuses one system call: load its number, compare, return an error or allow.
REFUSE = """
import ctypes, platform, struct
NUMBERS = {"x86_64": (319, 0xC000003E), "aarch64": (279, 0xC00000B7)}
number, machine = NUMBERS[platform.machine()]
steps = [(0x20, 0, 0, 4), (0x15, 0, 3, machine), (0x20, 0, 0, 0), (0x15, 0, 1, number),
         (0x06, 0, 0, 0x00050000 | ERROR), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.byref(header), 0, 0) != 0:
    print("no filters"); sys.exit()
import os
try:
    os.memfd_create("x")
except OSError as error:
    assert error.errno == ERROR, error
else:
    raise AssertionError("not refused")
"""


@pytest.mark.parametrize("error", [1, 13, 22, 38], ids=["EPERM", "EACCES", "EINVAL", "ENOSYS"])
def test_without_files_in_memory(error: int) -> None:
    """Sandboxes refuse memfd_create, as does vm.memfd_noexec = 2 without MFD_NOEXEC_SEAL."""
    code = """
assert torch.equal(generated(), expected)
assert ak.CacheArena("cpu").stats().is_virtual
"""
    said = run_script(GENERATE + REFUSE.replace("ERROR", str(error)) + code)
    if said:
        pytest.skip("no filters of system calls here")
