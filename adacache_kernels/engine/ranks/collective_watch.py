"""Notice collectives in the forward of a model whose group of ranks is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

NAMESPACES = ("c10d", "_c10d_functional", "c10d_functional")


class CollectiveWatch(TorchDispatchMode):
    """A context that stores the names of the collectives which run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and store its name if it is a collective."""
        if getattr(func, "namespace", "") in NAMESPACES:
            self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


def unknown_group(model: str, seen: Sequence[str]) -> str:
    """Return the message for a model that communicates with ranks of an unknown group."""
    return (
        f"the forward of this {model} communicates with other ranks ({seen[0]}), and it is not "
        "known which ranks hold parts of the same video. Each rank would decide by its own part, "
        "and wait forever for a rank that decided otherwise: give the group, "
        "patch(..., process_group=group), or a schedule that measures nothing (schedule=)"
    )
