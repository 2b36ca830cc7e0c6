"""Checks of the ops' arguments. Every message names the value and what was expected."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from ..options import Metric

METRICS: tuple[str, ...] = get_args(Metric)
"""The metrics of a distance."""
SLOT_HOLDS = ("nothing", "previous")
"""The contents that a slot may have before `distance_update`."""
BATCHES = ("any", "mean")
"""The rules by which the distances of several videos make one decision."""


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ValueError if the value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")


def check_alike(tensors: Mapping[str, Tensor]) -> None:
    """Check that the tensors are floating-point, of one shape and on one device.

    Raises:
        TypeError: a tensor is not floating-point.
        ValueError: a shape or device differs from that of the first tensor.
    """
    (first_name, first), *_ = tensors.items()
    for name, tensor in tensors.items():
        check_floating(name, tensor)
        check_matches(name, tensor, first_name, first)


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError if the dtype is not floating-point."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} is {tensor.dtype}, expected a floating-point dtype")


def check_matches(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError if the shape or device is not that of the other tensor."""
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
    """Check dtype, shape and device of a tensor.

    Raises:
        TypeError: the dtype differs.
        ValueError: the shape or device differs.
    """
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}, expected {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, expected {device}; move it there")


def check_stored(
    name: str, residual: Tensor, scale_name: str, scale: Tensor | None, other_name: str, x: Tensor
) -> None:
    """Check a stored residual of the shape of `x`, `[..., C]`, and its scale `[..., 1]`.

    Raises:
        TypeError: the residual is neither int8 nor floating-point, or the scale is not float32.
        ValueError: a shape or device differs from that of `x`, or int8 has no scale.
    """
    if residual.dtype == torch.int8 and scale is None:
        raise ValueError(f"{name} is torch.int8, expected a scale for it; pass {scale_name}")
    if residual.dtype != torch.int8 and not residual.is_floating_point():
        raise TypeError(f"{name} is {residual.dtype}, expected int8 or a floating-point dtype")
    check_matches(name, residual, other_name, x)
    if scale is not None:
        shape = (*residual.shape[:-1], 1)
        check_exactly(scale_name, scale, torch.float32, shape, x.device)


def check_writable(name: str, tensor: Tensor) -> None:
    """Raise ValueError for an expanded tensor, several elements of which share memory."""
    if tensor.is_contiguous():
        return
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in sizes_and_strides):
        raise ValueError(f"{name} is expanded, its elements share memory; clone it first")


def check_apart(name: str, written: Tensor, others: Sequence[tuple[str, Tensor]]) -> None:
    """Raise ValueError if a tensor that is written overlaps one of the named others.

    The check compares memory ranges from the first to the last element. Two views that interleave
    in one buffer therefore count as overlapping. Every tensor needs memory: no meta tensors.
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


def is_same_memory(a: Tensor, b: Tensor) -> bool:
    """Return True if two tensors of one shape and dtype have the same elements in memory."""
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride()


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses of the first byte and of the byte after the last one."""
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.nbytes
    if tensor.numel() == 0:
        return start, start
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in sizes_and_strides)
    return start, start + (last + 1) * tensor.element_size()
