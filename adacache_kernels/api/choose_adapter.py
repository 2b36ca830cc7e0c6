"""Find the adapter of a transformer, or the block lists that its first forward has to show."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..models import Adapter, adapter_for, choose_block_lists


def choose_adapter(transformer: nn.Module, blocks: str | Sequence[str]) -> Adapter | list[str]:
    """Return the adapter of a transformer, or the names of the block lists to probe.

    Args:
        transformer: the transformer.
        blocks: the name of a block list, or several; they are then probed even if the class of the
            transformer is known. Empty: use the adapter, or detect the block lists.

    Raises:
        TypeError: `blocks` is neither a name nor a list of names.
        ValueError: the class must not be cached, or no such block lists exist.
    """
    names = (blocks,) if isinstance(blocks, str) else blocks
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"blocks is {blocks!r}; it may be the name of a block list, or several")
    adapter = adapter_for(transformer)
    if adapter is None or names:
        return choose_block_lists(transformer, list(names))
    return adapter
