"""Inspect a transformer: what other libraries have set on it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .conflicting_patches import OtherPatches, check_no_conflict, find_other_patches
from .forward_wrappers import forward_attributes
from .torch_compile import CompiledBy, check_not_compiled, compiled_by, uncompiled


@dataclass(frozen=True)
class Inspection:
    """The marks of other libraries on one transformer.

    Args:
        model: the class of the transformer.
        compiled_by: the way in which the whole transformer was compiled; None if it was not.
        patches: caches and offloading by other libraries.
        forward_wrappers: the Python modules whose wrappers lie around its forward, outermost first.
    """

    model: str
    compiled_by: CompiledBy | None
    patches: OtherPatches
    forward_wrappers: tuple[str, ...]

    def check_not_compiled(self) -> None:
        """Refuse to patch a transformer that is compiled as a whole.

        Raises:
            ValueError: it is compiled; the message names the way and how to undo it.
        """
        check_not_compiled(self.model, self.compiled_by)

    def check_no_conflict(self) -> None:
        """Refuse to cache a transformer that another library caches.

        Raises:
            ValueError: there is a conflict; the message names it and both ways to resolve it.
        """
        check_no_conflict(self.model, self.patches)


def inspect(transformer: nn.Module) -> Inspection:
    """Return what other libraries have set on a transformer, which may be compiled."""
    model = uncompiled(transformer)
    wrappers = (attribute.wrapper for attribute in forward_attributes(model))
    return Inspection(
        model=type(model).__name__,
        compiled_by=compiled_by(transformer),
        patches=find_other_patches(model),
        forward_wrappers=tuple(wrapper for wrapper in wrappers if wrapper),
    )
