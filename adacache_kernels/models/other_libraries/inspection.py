"""Inspect a transformer before it is patched."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .. import Adapter, adapter_for, choose_block_lists


def _look_at(transformer: nn.Module, blocks: str | Sequence[str]) -> Adapter | list[str]:
    """What is known of a transformer, or the lists to probe where nothing is."""
    names = (blocks,) if isinstance(blocks, str) else blocks
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"blocks is {blocks!r}; it may be the name of a block list, or several")
    adapter = adapter_for(transformer)
    return (
        adapter
        if adapter is not None and not names
        else choose_block_lists(transformer, list(names))
    )
