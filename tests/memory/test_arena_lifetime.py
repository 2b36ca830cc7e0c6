"""Lifetimes: every order of dropping, the end of the interpreter, forks, and leaks."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.arenas import KINDS, MIB, PAGE, byte_spec, make_arena, mappings, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HOLDERS = ("arena", "lease", "tensor", "view", "array")
KEEP_MEMORY = {"lease", "tensor", "view", "array"}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_goes_with_its_last_holder_in_every_order(kind: str) -> None:
    watcher = make_arena(kind)  # Stays alive: its stats show what is mapped.
    for order in itertools.permutations(HOLDERS):
        lease = watcher.lease()
        (tensor,) = lease.tensors([byte_spec(3 * PAGE)])
        held = {"arena": watcher, "lease": lease, "tensor": tensor, "view": tensor.fill_(9)[5:70]}
        held["array"] = np.from_dlpack(tensor)
        del lease, tensor
        for dropped in order:
            del held[dropped]
            assert watcher.stats().mapped == (3 * PAGE if KEEP_MEMORY & held.keys() else 0), order
            assert all(held[name].sum() == 65 * 9 for name in ("view",) if name in held)
            assert all(held[name][-1] == 9 for name in ("tensor", "array") if name in held)


def test_view_outlives_arena_and_lease() -> None:
    before = mappings()
    arena = make_arena("virtual", max_bytes=8 * MIB)
    lease = arena.lease()
    view = lease.tensors([byte_spec(MIB)])[0].fill_(4)[-5:]
    lease.release()
    arena.close()
    del lease, arena
    gc.collect()
    assert view.fill_(6).tolist() == [6] * 5
    del view
    assert mappings() <= before


START = """
import adacache_kernels as ak, atexit, os, sys, threading, torch
arena = ak.CacheArena("cpu", "64MiB")
lease = arena.lease()
tensor, other = lease.tensors([((1 << 20,), torch.uint8), ((5, 5), torch.float32)])
tensor.fill_(7)
view = other.zero_()[1:]
"""

ENDINGS = {
    "globals": "",
    "only a view": "del arena, lease, tensor, other",
    "a cycle": "loop = [arena, lease, tensor, view]; loop.append(loop); del arena, lease, tensor",
    "in another module": "sys.keep = arena; threading.keep = tensor; os.keep = lease",
    "atexit": """
def late():
    lease.tensors([((1 << 20,), torch.uint8)])[0].fill_(1)
    lease.replan([((5,), torch.uint8)])
    assert tensor[5] == 7
    print("late")
atexit.register(late)
""",
    "__del__": """
class Late:
    def __init__(self): self.lease = lease
    def __del__(self): self.lease.release(); print("late")
late = Late()
""",
    # Without tensors: torch 2.13 itself aborts when a daemon thread is in one of its functions.
    "daemon thread": """
def work():
    while True:
        mine = arena.lease()._native
        mine.grow([70000] * 3, stream=0)
        mine.replan([5], stream=0)
        arena.stats()
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
threading.Event().wait(0.2)
""",
}
LATE = ("atexit", "__del__")


@pytest.mark.parametrize("ending", ENDINGS)
def test_interpreter_exits_well(ending: str) -> None:
    assert run_script(START + ENDINGS[ending]) == ("late\n" if ending in LATE else "")


def child_uses(arena: object) -> None:
    """Drop an arena of the parent, which is all that a child may do with it."""
    del arena
    gc.collect()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_leaves_the_memory_of_the_parent() -> None:
    arena = make_arena("virtual")
    lease = arena.lease()
    tensor = lease.tensors([byte_spec(MIB)])[0].fill_(5)
    before = arena.stats()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            lease.release()
            arena.close()
            del tensor, lease, arena
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (tensor == 5).all()
    assert arena.stats() == before
    assert lease.tensors([byte_spec(2 * MIB)])[0].fill_(6)[-1] == 6


def test_forked_interpreters_exit_well() -> None:
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Forks beside threads, since 3.12.
child = os.fork()
if child:
    status = os.waitpid(child, 0)[1]
    assert status == 0, status
    assert (tensor == 7).all()
    lease.tensors([((1 << 22,), torch.uint8)])[0].fill_(1)
    print("parent")
"""
    assert run_script(START + code) == "parent\n"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_multiprocessing_fork() -> None:
    arena = make_arena("virtual")
    tensor = arena.lease().tensors([byte_spec(MIB)])[0].fill_(5)
    process = multiprocessing.get_context("fork").Process(target=child_uses, args=(arena,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert (tensor == 5).all()


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def live_a_life(kind: str) -> None:
    arena = make_arena(kind, max_bytes=2 * MIB, chunk_bytes=PAGE)
    lease = arena.lease()
    tensors = lease.tensors([byte_spec(30 * PAGE), byte_spec(5)])
    tensors[0].fill_(1)
    tensors += lease.tensors([byte_spec(20 * PAGE)])
    tensors[-1].fill_(2)
    lease.replan([byte_spec(40 * PAGE)])
    np.from_dlpack(tensors[0])
    with pytest.raises(RuntimeError):
        lease.tensors([byte_spec(4 * MIB)])
    arena.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_lives_leave_nothing(kind: str) -> None:
    for _ in range(50):
        live_a_life(kind)
    before = resident_bytes(), mappings(), descriptors()
    for _ in range(1000):
        live_a_life(kind)
    after = resident_bytes(), mappings(), descriptors()
    # One life that leaked would be 1000 times 50 pages, mappings or file descriptors.
    assert after[0] - before[0] < 4 * MIB
    assert after[1] - before[1] < 20
    assert after[2] == before[2]
