"""Run the roof of each op: a C++ loop that moves the same bytes, compiled at its first use."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("roof.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")

_MASK = ctypes.c_uint64(0)
_WORD = 8


@functools.cache
def library() -> ctypes.CDLL:
    """Return the compiled loops.

    Raises:
        subprocess.CalledProcessError: g++ fails to compile them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "roof.so")
        subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(path)], check=True)
        return ctypes.CDLL(str(path))  # It stays loaded after the file is deleted.


def update(x: Tensor, *reads: Tensor) -> None:
    """Read x and one to three others of its size; write x."""
    others = [_address(tensor) for tensor in reads] + [None] * (3 - len(reads))
    library().roof_update(_address(x), *others, _words(x), torch.get_num_threads(), _MASK)


def write(x: Tensor, a: Tensor, b: Tensor, streaming: bool = False) -> None:
    """Read a and b; write x without reading it."""
    loop = library().roof_write_streaming if streaming else library().roof_write
    loop(_address(x), _address(a), _address(b), _words(x), torch.get_num_threads(), _MASK)


def add_bytes(x: Tensor, quantised: Tensor, scales: Tensor) -> None:
    """Read x `[..., C]`, its int8 values and the scales of its rows; write x."""
    _run_on_bytes(library().roof_add_bytes, x, quantised, scales, like=x)


def store_bytes(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Read two tensors `[..., C]`, the bytes of a slot and the scales of its rows.

    Write the bytes and the scales.
    """
    _run_on_bytes(library().roof_store_bytes, slot, scale, x_out, x_in, like=x_out)


def _run_on_bytes(loop: Any, *tensors: Tensor, like: Tensor) -> None:
    """Run a loop over the rows of `like`, `[..., C]`."""
    columns = like.shape[-1]
    sizes = (like.numel() // columns, columns, like.itemsize)
    loop(*map(_address, tensors), *map(ctypes.c_size_t, sizes), torch.get_num_threads(), _MASK)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _words(tensor: Tensor) -> ctypes.c_size_t:
    assert tensor.is_contiguous()
    assert tensor.nbytes % _WORD == 0
    return ctypes.c_size_t(tensor.nbytes // _WORD)
