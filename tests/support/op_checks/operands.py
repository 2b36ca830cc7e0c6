"""Operands of the ops in several memory layouts, and comparisons of their bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    (2, 4, 6, 8),
    (1, 3, 5, 7),
    (1, 1, 1, 1),
    (3, 2, 1, 1),
    (1, 2, 2, 1029),  # longer than one pass of the kernels, and odd
    (0, 3, 2, 4),
    (2, 0, 2, 4),
    (2, 3, 0, 4),
    (2, 3, 2, 0),
]
SENTINEL = 12345.0
Layout = Callable[[tuple[int, ...], torch.dtype], tuple[Tensor, Tensor]]


def contiguous(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((math.prod(shape),), SENTINEL, dtype=dtype)
    return base, base.view(shape)


def misaligned(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((math.prod(shape) + 2,), SENTINEL, dtype=dtype)
    return base, base[1:-1].view(shape)


def padded(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((*shape[:-1], shape[-1] + 3), SENTINEL, dtype=dtype)
    return base, base[..., : shape[-1]]


def permuted(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, frames, tokens, channels = shape
    base = torch.full((batch, tokens, frames, channels), SENTINEL, dtype=dtype)
    return base, base.transpose(1, 2)


def strided_channels(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    base = torch.full((*shape[:-1], 2 * shape[-1]), SENTINEL, dtype=dtype)
    return base, base[..., ::2]


LAYOUTS: list[Layout] = [contiguous, misaligned, padded, permuted, strided_channels]


def random(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> tuple[Tensor, Tensor]:
    base, view = layout(shape, dtype)
    view.copy_(torch.randn(shape))
    return base, view


def memory_layouts(values: Tensor) -> Iterator[Tensor]:
    """Yield the values in memory that is contiguous, misaligned, padded by row, and permuted."""
    yield values.clone(memory_format=torch.contiguous_format)
    yield torch.zeros(values.numel() + 1, dtype=values.dtype)[1:].view(values.shape).copy_(values)
    padded = torch.zeros((*values.shape[:-1], values.shape[-1] + 3), dtype=values.dtype)
    yield padded[..., : values.shape[-1]].copy_(values)
    yield values.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Compare the bits; any NaN equals any other."""
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[
        expected.element_size()
    ]
    same = actual.contiguous().view(integer) == expected.contiguous().view(integer)
    assert bool((same | nan).all())


def assert_tail_untouched(base: Tensor, view: Tensor) -> None:
    touched = torch.zeros_like(base, dtype=torch.bool)
    touched.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    assert bool((base[~touched] == SENTINEL).all())
