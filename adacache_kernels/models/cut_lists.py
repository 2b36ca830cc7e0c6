"""Cut the block lists of an adapter where the model changes a stream between two blocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from .adapter import Adapter, BlockList
from .adapter_builders import split_block_list


def cut_lists(
    adapter: Adapter, model: nn.Module, changed_after: Collection[tuple[str, int]]
) -> Adapter | None:
    """Return the adapter with its lists cut where the model changes a stream.

    Args:
        adapter: the description of the model.
        model: the model.
        changed_after: attribute of the list, and index of the block before the change.

    Returns:
        None if the blocks of such a list alternate with those of another one.
    """
    lists: list[BlockList] = []
    follows_alternating = False
    for blocks in adapter.lists:
        alternates = blocks.interleaved_with_next or follows_alternating
        follows_alternating = blocks.interleaved_with_next
        inside = [index for name, index in changed_after if name == blocks.attribute]
        if alternates and inside:
            return None
        whole = replace(blocks, start=0, stop=None, step=1).modules(model)
        lists += split_block_list(blocks, len(whole), inside)
    return replace(adapter, lists=tuple(lists))
