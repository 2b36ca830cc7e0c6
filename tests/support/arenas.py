"""Arenas of both kinds on the CPU, the compiled one and that of torch, and scripts that use one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from adacache_kernels import CacheArena
from adacache_kernels.memory import arena
from adacache_kernels.memory.torch_arena import TorchArena
from tests import ROOT

KINDS = ["virtual", "torch"]
PAGE = 4096
MIB = 1 << 20


def make_arena(kind: str, max_bytes: int | str = 64 * MIB, chunk_bytes: int = MIB) -> CacheArena:
    """Return an arena on the CPU, "virtual" (compiled) or "torch" (of ordinary tensors)."""
    if kind == "virtual":
        return CacheArena("cpu", max_bytes, chunk_bytes=chunk_bytes)
    with mock.patch.object(arena, "_make_arena", TorchArena):
        return CacheArena("cpu", max_bytes, chunk_bytes=chunk_bytes)


def byte_spec(size: int) -> tuple[tuple[int], torch.dtype]:
    """Return the spec of a tensor uint8 [size]."""
    return (size,), torch.uint8


def aligned(sizes: Iterable[int], granularity: int = 1) -> int:
    """Return the sum of the sizes, each rounded up to 256 bytes, rounded up to `granularity`."""
    total = sum(-(-size // 256) * 256 for size in sizes)
    return -(-total // granularity) * granularity


def extent(tensor: Tensor) -> tuple[int, int]:
    """Return the first and the end address of a tensor, rounded up to 256 bytes."""
    return tensor.data_ptr(), tensor.data_ptr() + aligned([tensor.nbytes])


def mappings() -> int:
    """Return the number of memory mappings of this process."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("\n")


def run_script(code: str, **environment: str) -> str:
    """Return what a fresh interpreter prints; fail if it fails, or writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", f"import tests\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
