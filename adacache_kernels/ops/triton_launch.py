"""The parts that all launches of Triton kernels share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages import warn_user


def vector(sizes: list[int], strides: list[list[int]], tensors: Sequence[Tensor]) -> int:
    """Return the elements of a group: 16 bytes of the widest dtype if all groups are aligned, or 1.

    With 16 bytes of the narrowest dtype, a thread would hold more elements of that tensor than it
    can load of another at once. Triton would then exchange elements through shared memory.
    """
    vector = 16 // max(tensor.element_size() for tensor in tensors)
    steps = [
        step
        for stride in strides[: len(tensors)]
        for size, step in zip(sizes[:3], stride, strict=False)
        if size > 1
    ]
    aligned = all(tensor.data_ptr() % (vector * tensor.element_size()) == 0 for tensor in tensors)
    return vector if aligned and all(n % vector == 0 for n in (sizes[3], *steps)) else 1


def as_bytes(tensor: Tensor) -> Tensor:
    """Return a float8 tensor as bytes, because sm_80 cannot convert float8; others unchanged."""
    return tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor


def on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which Triton launches on the device of the tensor."""
    if tensor.device.type == "cuda":
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


@functools.cache
def kernels() -> Any:
    """Return the namespace of the kernels; the first call imports Triton."""
    from .. import kernels

    return kernels.load()


@functools.cache
def has_triton() -> bool:
    """Return True if a Triton that compiles the kernels is installed; warn once if not."""
    try:
        kernels()
    except ImportError as error:
        warn_user(
            f"the kernels for the GPU need Triton 3.6 or newer, which does not load ({error}); "
            "plain torch runs instead, with the same results but several times slower"
        )
        return False
    return True
