"""Detect blocks that run outside of the patched forward, where nothing can be cached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..models import Adapter
from ..models.block_calls import whole_list

OUTSIDE = (
    "its blocks ran, but the patched forward was not called, so nothing is cached. Code outside of "
    "the model calls the blocks itself, or has kept the forward of the time before patch(). Call "
    "the model itself"
)
DO_NOTHING = logging.NullHandler.handle
"""A function of two arguments without an effect. Being of the standard library, it can be pickled
for a process without this package."""

_running: set[int] = set()
"""The ids of the patched forwards that run at present, in all threads."""


@contextmanager
def runs_patched_forward(forward: object) -> Iterator[None]:
    """Let blocks run without a warning while the context is entered."""
    _running.add(id(forward))
    try:
        yield
    finally:
        _running.discard(id(forward))


class OutsideBlocksHook:
    """A forward pre-hook that reports a call of its block outside of every patched forward.

    Copies and pickles of the block have a hook without an effect instead. Compiled blocks ignore
    the hook.

    Args:
        report: called with the text of the warning.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report

    def __call__(self, block: nn.Module, _args: tuple[Any, ...]) -> None:
        """Report the call, if it could have been cached."""
        if torch.compiler.is_compiling() or _running:
            return
        # Checkpoints of activations run blocks again in the backward pass.
        if not (block.training or torch.is_grad_enabled()):
            self._report(OUTSIDE)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        """Return a hook without an effect."""
        return DO_NOTHING

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a hook without an effect."""
        return getattr, (logging.NullHandler, DO_NOTHING.__name__)


class OutsideBlocks:
    """The hooks on the first block of each block list.

    Args:
        transformer: the patched transformer.
        found: its adapter, or the names of its block lists.
        report: called with the text of the warning, at each call of such a block.
    """

    def __init__(
        self,
        transformer: nn.Module,
        found: Adapter | Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        names = [x.attribute for x in found.lists] if isinstance(found, Adapter) else found
        lists = [whole_list(transformer, name) for name in dict.fromkeys(names)]
        hook = OutsideBlocksHook(report)
        self._handles = [
            block.register_forward_pre_hook(hook) for blocks in lists for block in blocks[:1]
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
