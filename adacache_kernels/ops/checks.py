"""What the ops ask of their arguments. Every message names the value and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Floating-point tensors of one shape on one device."""
    (first_name, first), *_ = tensors.items()
    for name, tensor in tensors.items():
        check_floating(name, tensor)
        check_place(name, tensor, first_name, first)


def check_floating(name: str, tensor: Tensor) -> None:
    """A tensor of a floating-point dtype."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} is {tensor.dtype}, expected a floating-point dtype")


def check_place(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """A tensor of the shape and on the device of another one."""
    if tensor.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected that of {other_name}, "
            f"{tuple(other.shape)}"
        )
    if tensor.device != other.device:
        raise ValueError(
            f"{name} is on {tensor.device}, expected the device of {other_name}, {other.device}; "
            "move it there"
        )


def check_exactly(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    """A tensor of that dtype and shape on that device."""
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}, expected {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, expected {device}; move it there")


def check_stored(
    name: str, residual: Tensor, scale_name: str, scale: Tensor | None, other_name: str, x: Tensor
) -> None:
    """A residual of the shape and on the device of `x`, and one scale a token if it has some."""
    if residual.dtype == torch.int8 and scale is None:
        raise ValueError(f"{name} is torch.int8, expected a scale for it; pass {scale_name}")
    if residual.dtype != torch.int8 and not residual.is_floating_point():
        raise TypeError(f"{name} is {residual.dtype}, expected int8 or a floating-point dtype")
    check_place(name, residual, other_name, x)
    if scale is not None:
        shape = (*residual.shape[:-1], 1)
        check_exactly(scale_name, scale, torch.float32, shape, x.device)


def check_writable(name: str, tensor: Tensor) -> None:
    """An expanded tensor has many elements in one place: an in-place op on it has no meaning."""
    if tensor.is_contiguous():
        return
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in sizes_and_strides):
        raise ValueError(f"{name} is expanded, its elements share memory; clone it first")


def check_apart(name: str, written: Tensor, others: Sequence[tuple[str, Tensor]]) -> None:
    """What is written must lie apart from what is read; for tensors that have memory.

    Compared are the memory ranges from first to last element: two views that interleave in one
    buffer are taken to overlap.
    """
    start, end = _memory(written)
    if start == end:
        return
    for other_name, other in others:
        other_start, other_end = _memory(other)
        if start < other_end and other_start < end:
            raise ValueError(
                f"{name} (bytes {start:#x} to {end:#x}) overlaps {other_name} "
                f"(bytes {other_start:#x} to {other_end:#x}), expected memory of its own; clone one"
            )


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Addresses of the first byte and of the one after the last; no bytes in an empty tensor."""
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.nbytes
    if tensor.numel() == 0:
        return start, start
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in sizes_and_strides)
    return start, start + (last + 1) * tensor.element_size()
