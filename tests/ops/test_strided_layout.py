"""The merging of dimensions: fewer of them, with the same elements in the same order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adacache_kernels.ops.strided_layout import merge, pad


def offsets(sizes: Sequence[int], strides: Sequence[int]) -> Iterator[int]:
    """Return the offset of each element, the last dimension fastest."""
    for index in itertools.product(*map(range, sizes)):
        yield sum(i * stride for i, stride in zip(index, strides, strict=True))


@st.composite
def views(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """Draw a shape, and the strides of two views of it: permuted, padded or expanded."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    strides = []
    for _ in range(2):
        order = draw(st.permutations(range(len(shape))))
        padding = draw(st.lists(st.integers(0, 1), min_size=len(shape), max_size=len(shape)))
        step, of_view = 1, [0] * len(shape)
        for dimension in reversed(order):
            of_view[dimension] = step
            step = step * shape[dimension] + padding[dimension]
        strides.append(of_view)
    return shape, strides


@settings(deadline=None, max_examples=300, derandomize=True)
@given(views())
def test_merged_dimensions_have_the_same_elements(view: tuple[list[int], list[list[int]]]) -> None:
    shape, strides = view
    sizes, merged = merge(shape, strides)
    assert len(sizes) <= max(1, len(shape))
    for before, after in zip(strides, merged, strict=True):
        assert list(offsets(shape, before)) == list(offsets(sizes, after))
    # No dimensions are left to merge.
    for d in range(len(sizes) - 1):
        assert any(after[d] != after[d + 1] * sizes[d + 1] for after in merged)


def test_contiguous_tensors_become_one_row() -> None:
    x = torch.empty(2, 3, 4, 5)
    assert merge(x.shape, [x.stride(), x.stride()]) == ([120], [[1], [1]])
    frames_later = x.transpose(1, 2)
    sizes, strides = merge(frames_later.shape, [frames_later.stride()])
    assert (sizes, strides) == ([2, 4, 3, 5], [[60, 5, 20, 1]])


def test_a_scale_keeps_the_channels_apart() -> None:
    x, scale = torch.empty(2, 3, 4), torch.empty(2, 3, 1).expand(2, 3, 4)
    assert merge(x.shape, [x.stride(), scale.stride()]) == ([6, 4], [[4, 1], [1, 0]])


def test_one_element_and_padding() -> None:
    sizes, strides = merge([1, 1], [[7, 7]])
    assert (sizes, strides) == ([1], [[1]])
    pad(sizes, strides, 3)
    assert (sizes, strides) == ([1, 1, 1], [[0, 0, 1]])
