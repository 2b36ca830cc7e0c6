"""What every launch of a Triton kernel needs."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..options import AdaCacheWarning


def vector(sizes: list[int], strides: list[list[int]], tensors: Sequence[Tensor]) -> int:
    """Elements in 16 bytes of the widest dtype, if every group begins at a multiple of its size.

    Of the narrowest dtype, a thread would hold more of the one tensor than it can load of the other
    at once, and Triton would pass elements between threads through shared memory.
    """
    vector = 16 // max(tensor.element_size() for tensor in tensors)
    steps = [
        step
        for stride in strides[: len(tensors)]
        for size, step in zip(sizes[:3], stride, strict=False)
        if size > 1
    ]
    begins = all(tensor.data_ptr() % (vector * tensor.element_size()) == 0 for tensor in tensors)
    return vector if begins and all(n % vector == 0 for n in (sizes[3], *steps)) else 1


def as_bytes(tensor: Tensor) -> Tensor:
    """Float8 is taken apart in the kernel: sm_80 cannot convert it."""
    return tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor


def on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device."""
    if tensor.device.type == "cuda":
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


@functools.cache
def kernels() -> Any:
    """The kernels; Triton is imported when the first one is launched."""
    from .. import kernels

    return kernels.load()


@functools.cache
def has_triton() -> bool:
    """Whether there is one that can compile them; says so once if there is none."""
    try:
        kernels()
    except ImportError as error:
        warnings.warn(
            f"the kernels for the GPU need Triton 3.6 or newer, which does not load ({error}); "
            "plain torch runs in their place: right, but several times slower",
            AdaCacheWarning,
            stacklevel=2,
        )
        return False
    return True
