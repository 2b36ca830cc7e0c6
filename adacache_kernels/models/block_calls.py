"""Bind the arguments of block calls, and shadow attributes of a module for one forward call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .other_libraries.forward_wrappers import own_forward
from .other_libraries.torch_compile import uncompiled


class Parameters:
    """The names of the parameters of a module's forward."""

    def __init__(self, module: nn.Module) -> None:
        # Wrappers of other libraries may have another signature than the forward that they wrap.
        forward = own_forward(uncompiled(module))
        self._names = tuple(inspect.signature(forward).parameters)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        return dict(zip(self._names, args, strict=False)) | dict(kwargs)


def versions(tensors: Iterable[Tensor | None]) -> list[int]:
    """Return one number per tensor that changes with every write into the tensor.

    It is -1 for None, and for inference tensors: they have no version counter, so a write into
    them cannot be detected.
    """
    return [-1 if x is None or x.is_inference() else x._version for x in tensors]


@contextmanager
def shadowed(module: nn.Module, replacements: Mapping[str, object]) -> Iterator[None]:
    """Replace attributes of `module` inside the context.

    An instance attribute hides a registered module of the same name, which stays registered.

    Args:
        module: the module.
        replacements: the replacing objects, by attribute name.
    """
    attributes = vars(module)
    attributes.update(replacements)
    try:
        yield
    finally:
        for name in replacements:
            attributes.pop(name, None)
