"""Host arenas under limits of the process: of addresses, of open files, of system calls."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.arenas import MIB, byte_spec
from tests.support.forks import in_child
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
WAN = TINY["wan"]


def generated() -> Tensor:
    model = ak.patch(WAN.build(), codebook={9.0: 2}, num_inference_steps=6)
    latents = denoise(WAN, model, 6)[-1]
    assert ak.summary(model).reused_steps
    return latents


def limit_addresses(spare: int) -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))


@pytest.mark.parametrize("spare", [256 * MIB, 2048 * MIB, 1 << 39])
def test_a_default_arena_under_a_limit_of_addresses(spare: int) -> None:
    """Nothing is reserved in advance, so the rest of the process keeps its addresses."""
    expected = generated()

    def work() -> None:
        limit_addresses(spare)
        assert close(generated(), expected)
        arena = ak.CacheArena("cpu")
        assert arena.stats().is_virtual and arena.stats().reserved == 0
        lease = arena.lease()
        tensors = lease.tensors([byte_spec(MIB), byte_spec(5)])
        tensors += lease.tensors([byte_spec(2 * MIB)])
        for number, tensor in enumerate(tensors):
            tensor.fill_(number)
        assert all(tensor.eq(number).all() for number, tensor in enumerate(tensors))
        assert arena.stats().reserved == arena.stats().mapped > 3 * MIB
        lease.release()
        tensors.clear()
        del tensor
        assert arena.stats().reserved == arena.stats().mapped == 0

    in_child(work)


def test_more_than_the_limit_is_an_error_and_the_arena_stays_usable() -> None:
    def work() -> None:
        limit_addresses(512 * MIB)
        lease = ak.CacheArena("cpu").lease()
        with pytest.raises(torch.OutOfMemoryError, match="ENOMEM"):
            lease.tensors([byte_spec(1024 * MIB)])
        assert lease.tensors([byte_spec(100)])[0].fill_(1).sum() == 100

    in_child(work)


def test_a_budget_of_more_addresses_than_there_are() -> None:
    arena = ak.CacheArena("cpu", 1 << 60)
    assert arena.stats().is_virtual and arena.stats().reserved == 0
    assert arena.lease().tensors([byte_spec(100)])[0].fill_(1).sum() == 100


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK"])
def test_without_files(name: str) -> None:
    """An arena needs no descriptor, and no file that a limit of sizes would end by a signal."""
    expected = generated()

    def work() -> None:
        import resource

        resource.setrlimit(getattr(resource, name), (0, 0))
        assert close(generated(), expected)
        assert ak.CacheArena("cpu").stats().is_virtual

    in_child(work)


MEMFD_CREATE = {"x86_64": (319, 0xC000003E), "aarch64": (279, 0xC00000B7)}
"""For each machine, the number of the system call, and that of the machine."""


def refuse_memfd(error: int) -> bool:
    """Refuse memfd_create in this process; return False if the system has no such filters."""
    number, machine = MEMFD_CREATE[platform.machine()]
    # Load the machine, compare, load the number, compare, return an error, or allow.
    steps = [
        (0x20, 0, 0, 4),
        (0x15, 0, 3, machine),
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | error),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None)
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with a filter.
    return libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0


@pytest.mark.skipif(platform.machine() not in MEMFD_CREATE, reason="the number of a system call")
@pytest.mark.parametrize("error", ["EPERM", "EACCES", "EINVAL", "ENOSYS"])
def test_without_files_in_memory(error: str) -> None:
    """Sandboxes refuse memfd_create, as does vm.memfd_noexec = 2 without MFD_NOEXEC_SEAL."""
    import errno

    code = getattr(errno, error)
    expected = generated()

    def work() -> None:
        if not refuse_memfd(code):
            return
        with pytest.raises(OSError) as refused:
            os.memfd_create("x")
        assert refused.value.errno == code
        assert close(generated(), expected)
        assert ak.CacheArena("cpu").stats().is_virtual

    in_child(work)
