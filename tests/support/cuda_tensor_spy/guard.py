"""Build and load the CUDA device guard that does nothing: one second, once in a process."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).parent / "device_guard.cpp"


def compiler() -> list[str] | None:
    """Return the command of the C++ compiler; None if there is no compiler."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["g++"], ["clang++"], ["c++"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def why_not() -> str | None:
    """Return the reason why CUDA tensors cannot be faked here; None if they can."""
    if torch.backends.cuda.is_built() or torch.version.hip:
        return "this torch is built with CUDA: its own device guard would look for a device"
    if compiler() is None:
        return "no C++ compiler: the device guard of fake CUDA tensors cannot be built"
    return None


@functools.cache
def install_guard() -> None:
    """Allow fake tensors on cuda:0, until the end of the process.

    Raises:
        RuntimeError: `why_not` returns a reason.
        subprocess.CalledProcessError: the guard does not compile.
    """
    reason = why_not()
    command = compiler()
    if reason is not None or command is None:
        raise RuntimeError(reason)
    includes = [f"-I{path}" for path in include_paths()]
    libraries = [f"-L{path}" for path in library_paths()]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "device_guard.so"
        options = ["-std=c++20", "-shared", "-fPIC", *includes, str(SOURCE), "-o", str(built)]
        subprocess.run([*command, *options, *libraries, "-lc10"], check=True)
        ctypes.CDLL(str(built)).install_idle_cuda_guard()
