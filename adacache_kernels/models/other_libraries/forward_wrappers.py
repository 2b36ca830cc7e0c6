"""Find a module's own forward under the wrappers of other libraries.

diffusers and accelerate wrap the `forward` of an instance. When their hook is removed, they restore
the forward that was there when the hook was added. Anything that was set above their wrapper is
then lost. accelerate, for example, removes and adds its hook after every run of a pipeline with
model offloading. The patch therefore goes below all known wrappers. There it stays, whatever is
added and removed above.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@dataclass(frozen=True)
class ForwardAttribute:
    """An attribute that contains a forward.

    Args:
        attributes: all attributes of the object that has it.
        name: the name of the attribute.
    """

    attributes: dict[str, Any]
    name: str

    @property
    def value(self) -> Any:
        """Return the forward; None if the class's own forward is used."""
        return self.attributes.get(self.name)

    @property
    def wrapper(self) -> str:
        """Return the Python module whose wrapper the forward is; "" if it is no known wrapper."""
        forward = self.value
        return forward.func.__module__ if isinstance(forward, functools.partial) else ""

    def set(self, forward: Forward) -> None:
        """Use this forward."""
        self.attributes[self.name] = forward

    def clear(self) -> None:
        """Use the class's own forward again."""
        del self.attributes[self.name]


def forward_attributes(module: nn.Module) -> Iterator[ForwardAttribute]:
    """Yield the instance's `forward`, then the attribute below each known wrapper."""
    attributes = vars(module)
    attribute = ForwardAttribute(attributes, "forward")
    references = list(getattr(attributes.get("_diffusers_hook"), "_fn_refs", ()))
    while True:
        yield attribute
        library = attribute.wrapper
        if library == "accelerate.hooks" and "_old_forward" in attributes:
            attribute = ForwardAttribute(attributes, "_old_forward")
        elif library == "diffusers.hooks.hooks" and references:
            reference = references.pop()
            has_own = reference.original_forward is not None
            name = "original_forward" if has_own else "forward"
            attribute = ForwardAttribute(vars(reference), name)
        else:
            return


def innermost_forward(module: nn.Module) -> ForwardAttribute:
    """Return the attribute below all known wrappers."""
    *_, last = forward_attributes(module)
    return last


def own_forward(module: nn.Module) -> Forward:
    """Return the module's forward without the known wrappers."""
    forward = innermost_forward(module).value
    return module.forward if forward is None else forward
