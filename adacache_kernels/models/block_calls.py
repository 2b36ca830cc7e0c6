"""Bind the arguments of block calls, and shadow block lists for one forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .other_libraries.forward_wrappers import own_forward
from .other_libraries.torch_compile import uncompiled


class Parameters:
    """Names of the parameters of a module's forward, to find an argument by its name."""

    def __init__(self, module: nn.Module) -> None:
        # Not all wrappers of other libraries have the signature of what they wrap.
        forward = own_forward(uncompiled(module))
        self._names = tuple(inspect.signature(forward).parameters)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name."""
        return dict(zip(self._names, args, strict=False)) | dict(kwargs)


def version(x: Tensor) -> int:
    """Changes with every write into `x`."""
    # Inference tensors count no versions; there, an in-place write cannot be seen.
    return -1 if x.is_inference() else x._version


def storages(value: object) -> frozenset[int]:
    """The storages of all tensors in `value`, containers searched."""
    if isinstance(value, Tensor):
        return frozenset((value.untyped_storage()._cdata,))
    if isinstance(value, Mapping):
        return storages(tuple(value.values()))
    if isinstance(value, list | tuple):
        return frozenset().union(*map(storages, value))
    return frozenset()


@contextmanager
def shadowed(model: nn.Module, lists: Mapping[str, Sequence[Any]]) -> Iterator[None]:
    """Let `model.<name>` be `lists[name]` inside.

    An instance attribute hides a registered module of the same name, which stays registered.
    """
    attributes = vars(model)
    attributes.update(lists)
    try:
        yield
    finally:
        for name in lists:
            attributes.pop(name, None)
