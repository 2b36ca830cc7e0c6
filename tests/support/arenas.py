"""Arenas of both kinds on the CPU: the compiled one, and that of ordinary tensors."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from adacache_kernels import CacheArena
from adacache_kernels.memory import arena
from adacache_kernels.memory.torch_arena import TorchArena
from tests import ROOT

KINDS = ["virtual", "plain"]
PAGE = 4096
MIB = 1 << 20


def make(kind: str, max_bytes: int | str = 64 * MIB, chunk_bytes: int = MIB) -> CacheArena:
    if kind == "virtual":
        return CacheArena("cpu", max_bytes, chunk_bytes=chunk_bytes)
    with mock.patch.object(arena, "_make_arena", TorchArena):
        return CacheArena("cpu", max_bytes, chunk_bytes=chunk_bytes)


def byte_spec(size: int) -> tuple[tuple[int], torch.dtype]:
    return (size,), torch.uint8


def extent(tensor: Tensor) -> tuple[int, int]:
    """Addresses that a tensor covers, up to the 256 bytes that it is rounded to."""
    return tensor.data_ptr(), tensor.data_ptr() + -(-tensor.nbytes // 256) * 256


def mappings() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count("\n")


def run_script(code: str, **environment: str) -> str:
    """What a fresh interpreter prints. It has to end well and say nothing on stderr."""
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
