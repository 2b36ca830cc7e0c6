"""Notice collectives in the forward of a model whose group of ranks is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from ...models.other_libraries.rank_groups import RankGroup, is_distributed

NAMESPACES = ("c10d", "_c10d_functional", "c10d_functional")


class CollectiveWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that stores the names of the collectives which run inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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


@contextmanager
def group_known(model: str, groups: Sequence[RankGroup]) -> Iterator[None]:
    """Look for collectives in a forward, if ranks may hold parts of a video unknown to us.

    Args:
        model: the class of the model.
        groups: the groups that were found.

    Raises:
        ValueError: there are collectives, and no group was found.
    """
    if groups or not is_distributed():
        yield
        return
    with CollectiveWatch() as watch:
        yield
    if watch.seen:
        raise ValueError(
            f"the forward of this {model} communicates with other ranks ({min(watch.seen)}), and "
            "it is not known which ranks hold parts of the same video. Each rank would decide by "
            "its own part, and wait forever for a rank that decided otherwise: give the group, "
            "patch(..., process_group=group), or a schedule that measures nothing (schedule=)"
        )
