"""Where a module's own forward lies under the wrappers of other libraries.

diffusers and accelerate wrap the `forward` of an instance, and when their hook is removed they set
back what was there when it was added. What is set on top of their wrapper is lost then: accelerate
removes and adds its hook after every run of a pipeline with model offloading. So the patch goes
below all wrappers that are known, where it stays whatever is added and removed above.
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
    """An attribute that holds a forward.

    Args:
        attributes: of the object that has it.
        name: of the attribute.
    """

    attributes: dict[str, Any]
    name: str

    @property
    def value(self) -> Any:
        """What is there; None where the class's own forward is used."""
        return self.attributes.get(self.name)

    def put(self, forward: Forward) -> None:
        self.attributes[self.name] = forward

    def clear(self) -> None:
        """The class's own forward is used again."""
        del self.attributes[self.name]


def places(module: nn.Module) -> Iterator[ForwardAttribute]:
    """The instance's `forward`, and what lies below each wrapper that is known, outermost first."""
    attributes = vars(module)
    place = ForwardAttribute(attributes, "forward")
    references = list(getattr(attributes.get("_diffusers_hook"), "_fn_refs", ()))
    while True:
        yield place
        library = _wrapper_of(place.value)
        if library == "accelerate.hooks" and "_old_forward" in attributes:
            place = ForwardAttribute(attributes, "_old_forward")
        elif library == "diffusers.hooks.hooks" and references:
            reference = references.pop()
            has_own = reference.original_forward is not None
            place = ForwardAttribute(vars(reference), "original_forward" if has_own else "forward")
        else:
            return


def innermost(module: nn.Module) -> ForwardAttribute:
    """The place below all wrappers that are known."""
    *_, last = places(module)
    return last


def own_forward(module: nn.Module) -> Forward:
    """The module's forward without the wrappers that are known."""
    found = innermost(module).value
    return module.forward if found is None else found


def _wrapper_of(forward: object) -> str:
    """The module whose wrapper this is."""
    return forward.func.__module__ if isinstance(forward, functools.partial) else ""
