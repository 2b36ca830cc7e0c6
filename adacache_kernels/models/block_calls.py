"""Bind the arguments of block calls, and shadow attributes of a module for one forward call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .other_libraries.forward_wrappers import own_forward
from .other_libraries.torch_compile import uncompiled

Kind = inspect.Parameter
BY_POSITION = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
NAMED = (*BY_POSITION, Kind.KEYWORD_ONLY)


class Parameters:
    """The names of the parameters of a module's forward."""

    def __init__(self, module: nn.Module) -> None:
        # Wrappers of other libraries may have another signature than the forward that they wrap.
        forward = own_forward(uncompiled(module))
        parameters = inspect.signature(forward).parameters.values()
        self._positional = tuple(p.name for p in parameters if p.kind in BY_POSITION)
        self.names = frozenset(p.name for p in parameters if p.kind in NAMED)
        """The parameters that a call can give by name or position, without `*args`, `**kwargs`."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name; those of `*args` are named by their position."""
        extra = (f"argument {number}" for number in range(len(self._positional), len(args)))
        names = (*self._positional[: len(args)], *extra)
        return dict(zip(names, args, strict=True)) | dict(kwargs)


def versions(tensors: Iterable[Tensor | None]) -> list[int]:
    """Return one number per tensor that changes with every write into the tensor.

    It is -1 for None, and for inference tensors: they have no version counter, so a write into
    them cannot be detected.
    """
    return [-1 if x is None or x.is_inference() else x._version for x in tensors]


def registered(module: nn.Module, path: str) -> nn.Module | None:
    """Return the registered module at a dotted path, also while `shadowed` hides it, or None."""
    found: nn.Module | None = module
    for name in path.split(".") if path else ():
        found = None if found is None else found._modules.get(name)
    return found


def whole_list(module: nn.Module, path: str) -> list[nn.Module]:
    """Return the modules of an `nn.ModuleList`, or the values of an `nn.ModuleDict`, at a path.

    A module that is in the list twice is twice in the result. Anything else is empty.
    """
    found = registered(module, path)
    if isinstance(found, nn.ModuleDict):
        return list(found.values())
    return list(found) if isinstance(found, nn.ModuleList) else []


@contextmanager
def shadowed(module: nn.Module, replacements: Mapping[str, object]) -> Iterator[None]:
    """Replace submodules of `module` inside the context.

    An instance attribute hides a registered module of the same name, which stays registered.

    Args:
        module: the module.
        replacements: the replacing objects, by dotted name; for an `nn.ModuleDict` its values.
    """
    shadows = [_shadow(module, path, value) for path, value in replacements.items()]
    for attributes, name, value in shadows:
        attributes[name] = value
    try:
        yield
    finally:
        for attributes, name, _ in shadows:
            attributes.pop(name, None)


def _shadow(module: nn.Module, path: str, value: object) -> tuple[dict[str, Any], str, object]:
    """Return the attributes of the owner of a submodule, its name there, and the new value."""
    parent, _, name = path.rpartition(".")
    owner, whole = registered(module, parent), registered(module, path)
    assert owner is not None
    if isinstance(whole, nn.ModuleDict) and isinstance(value, Sequence):
        value = dict(zip(whole, value, strict=True))
    return vars(owner), name, value
