"""The form in which the compiled kernels of ``csrc/`` take tensors and names."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The codes of the dtypes that every compiled kernel takes."""
STORED_DTYPES = DTYPES | {torch.int8: 3, torch.float8_e4m3fn: 4}
"""The codes of the dtypes of a stored residual."""


def takes(*tensors: Tensor) -> bool:
    """Return True if the compiled kernels take the dtypes and layouts of these tensors."""
    return all(tensor.dtype in DTYPES and _has_rows(tensor) for tensor in tensors)


def takes_stored(*tensors: Tensor) -> bool:
    """Return True if the compiled kernels take these tensors as stored residuals."""
    return all(tensor.dtype in STORED_DTYPES and _has_rows(tensor) for tensor in tensors)


def view(tensor: Tensor) -> object:
    """Return the `_C.View` of a tensor of at most four dimensions.

    The view has the address of the tensor: the tensor has to outlive it.
    """
    return _native.module().View(
        tensor.data_ptr(), STORED_DTYPES[tensor.dtype], list(tensor.shape), list(tensor.stride())
    )


def optional_view(tensor: Tensor | None) -> object:
    """Return the `_C.View` of a tensor, or None."""
    return None if tensor is None else view(tensor)


def address(tensor: Tensor | None) -> int:
    """Return the address of a contiguous tensor, or 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def _has_rows(tensor: Tensor) -> bool:
    """Return True if the last of at most four dimensions is contiguous."""
    if tensor.dim() == 0 or tensor.shape[-1] <= 1:
        return tensor.dim() <= 4
    return tensor.dim() <= 4 and tensor.stride(-1) == 1
