"""The layouts of several tensors, merged into as few dimensions as all of them allow."""

from __future__ import annotations

from collections.abc import Sequence


def merge(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
    """Return the sizes, and the strides of each tensor, in as few dimensions as possible.

    Two neighbouring dimensions become one if every tensor steps evenly through both. Dimensions of
    one element are dropped; at least one dimension is left.

    Args:
        shape: the shape of all tensors.
        strides: for each tensor, the strides in elements.
    """
    sizes: list[int] = []
    steps: list[list[int]] = []
    for size, step in zip(shape, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if sizes and all(a == b * size for a, b in zip(steps[-1], step, strict=True)):
            sizes[-1] *= size
            steps[-1] = list(step)
        else:
            sizes.append(size)
            steps.append(list(step))
    if not sizes:
        return [1], [[1] for _ in strides]
    return sizes, [list(by_dimension) for by_dimension in zip(*steps, strict=True)]


def pad(sizes: list[int], strides: list[list[int]], dimensions: int) -> None:
    """Insert dimensions of one element in front, in place, until there are `dimensions`."""
    missing = dimensions - len(sizes)
    sizes[:0] = [1] * missing
    for stride in strides:
        stride[:0] = [0] * missing
