"""The roof of each op: a loop in C++ that moves the same bytes, compiled at its first use."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("roof.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")

_MASK = ctypes.c_uint64(0)
_WORD = 8


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled loops.

    Raises:
        subprocess.CalledProcessError: g++ does not compile them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "roof.so")
        subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(path)], check=True)
        return ctypes.CDLL(str(path))  # Stays loaded when the file is gone.


def update(x: Tensor, *reads: Tensor) -> None:
    """Reads x and one to three others of its size, writes x."""
    others = [_address(tensor) for tensor in reads] + [None] * (3 - len(reads))
    library().roof_update(_address(x), *others, _words(x), torch.get_num_threads(), _MASK)


def write(x: Tensor, a: Tensor, b: Tensor, streaming: bool = False) -> None:
    """Reads two tensors, writes x without reading it."""
    loop = library().roof_write_streaming if streaming else library().roof_write
    loop(_address(x), _address(a), _address(b), _words(x), torch.get_num_threads(), _MASK)


def add_bytes(x: Tensor, quantised: Tensor, scales: Tensor) -> None:
    """Reads x, an int8 for each of its elements and a float32 for each row; writes x."""
    columns = x.shape[-1]
    library().roof_add_bytes(
        _address(x),
        _address(quantised),
        _address(scales),
        ctypes.c_size_t(x.numel() // columns),
        ctypes.c_size_t(columns),
        ctypes.c_size_t(x.itemsize),
        torch.get_num_threads(),
        _MASK,
    )


def store_bytes(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Reads two tensors, a byte for each of their elements and a float32 for each row; writes these
    bytes and float32."""
    columns = slot.shape[-1]
    library().roof_store_bytes(
        _address(slot),
        _address(scale),
        _address(x_out),
        _address(x_in),
        ctypes.c_size_t(slot.numel() // columns),
        ctypes.c_size_t(columns),
        ctypes.c_size_t(x_out.itemsize),
        torch.get_num_threads(),
        _MASK,
    )


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _words(tensor: Tensor) -> ctypes.c_size_t:
    assert tensor.is_contiguous()
    assert tensor.nbytes % _WORD == 0
    return ctypes.c_size_t(tensor.nbytes // _WORD)
