"""The compiled part of the package, loaded at its first use."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
STORED_DTYPES = DTYPES | {torch.int8: 3, torch.float8_e4m3fn: 4}
"""Those of a residual that is added: it may be kept in eight bits."""


@functools.cache
def module() -> ModuleType:
    """The extension module ``adacache_kernels._C``.

    Raises:
        ImportError: it is missing or does not load.
    """
    try:
        from . import _C
    except ImportError as error:
        raise ImportError(
            f"the compiled part of adacache_kernels does not load ({error}). In a source tree it "
            "has to be built: run `pip install .`, or `pip install -e .` to work on the sources, "
            "with a C++17 compiler installed; an installed package has to be installed again"
        ) from error
    return _C


def takes(*tensors: Tensor) -> bool:
    """Whether the compiled kernels know the dtypes and layouts of these tensors."""
    return all(tensor.dtype in DTYPES and _has_rows(tensor) for tensor in tensors)


def takes_stored(*tensors: Tensor) -> bool:
    """Whether the compiled kernels can add these residuals."""
    return all(tensor.dtype in STORED_DTYPES and _has_rows(tensor) for tensor in tensors)


def view(tensor: Tensor) -> object:
    """What the compiled kernels see of a tensor. It has to live as long as the view."""
    return module().View(
        tensor.data_ptr(), STORED_DTYPES[tensor.dtype], list(tensor.shape), list(tensor.stride())
    )


def _has_rows(tensor: Tensor) -> bool:
    if tensor.dim() == 0 or tensor.shape[-1] <= 1:
        return tensor.dim() <= 4
    return tensor.dim() <= 4 and tensor.stride(-1) == 1
