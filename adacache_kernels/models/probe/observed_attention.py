"""Find the gated residual of the attention in a block of an unknown class.

A block adds `gate * attention` to its input x, and the next submodule takes the sum:

    x -> norm -> attention -> x_1 = x + gate * attention -> next submodule -> ...

The gate is not known, but `x_1 - x` needs none. It counts as the residual of the attention if it is
the attention's output times one factor for each video and channel. That is computed, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import BlockList, Residual
from .value_check import Value

NAMES = ("attn1", "attn", "self_attn", "self_attention")
"""The names that blocks give to their attention within the video."""
TOLERANCE = 0.01
"""The most that may be left of the residual, as a share of it, without the gated attention."""
CHANNELS = 64
"""The channels that are compared. All tokens of them are, because they share a gate."""
LEAST_TOKENS = 4
"""With fewer tokens, a gate would fit any residual."""


class AttentionWatch:
    """An observer of the submodules of one block, in one call.

    Args:
        block: the block.
    """

    def __init__(self, block: nn.Module) -> None:
        children = dict(block.named_children())
        names = [name for name in NAMES if name in children]
        self._children = children if len(names) == 1 else {}
        self._attention = names[0] if len(names) == 1 else ""
        self._calls: dict[str, int] = {}
        self._attended: tuple[Tensor, ...] = ()
        self._next: tuple[str, Tensor, Value] | None = None
        self._samples: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._written: list[Tensor | bool] = []

    @contextmanager
    def watching(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Watch the submodules inside the context.

        Args:
            arguments: arguments of the block by name.
        """
        handles = [
            child.register_forward_pre_hook(self._entering(name))
            for name, child in self._children.items()
        ]
        if self._children:
            attention = self._children[self._attention]
            handles.append(attention.register_forward_hook(self._note_attention))
        given = {name: Value(x) for name, x in arguments.items() if isinstance(x, Tensor)}
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._take_samples(arguments, given)

    def residual(
        self, blocks: BlockList, video: tuple[int, int], lists: tuple[str, ...]
    ) -> Residual | None:
        """Return the residual of the attention, or None if the call did not show it.

        Args:
            blocks: the list of the block.
            video: videos and frames of the call.
            lists: names of the lists that have such blocks.
        """
        sample = self._samples.get(blocks.streams[0].parameter)
        if sample is None or self._next is None or any(self._written):
            return None
        name = self._next[0]
        is_single = self._calls[name] == 1 and self._calls[self._attention] == 1
        if not is_single or not _is_gated(*(blocks.split(x, 0, video) for x in sample)):
            return None
        return Residual(lists, (name,), lambda run: run.tap_input(name) - run.x_in)

    def _note_attention(self, _module: nn.Module, _args: Any, output: Any) -> None:
        values = output if isinstance(output, tuple | list) else (output,)
        self._attended = tuple(x for x in values if isinstance(x, Tensor))

    def _entering(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._calls[name] = self._calls.get(name, 0) + 1
            if not self._attended or self._next is not None:
                return
            if args and isinstance(args[0], Tensor):
                self._next = name, args[0], Value(args[0])

        return enter

    def _take_samples(self, arguments: Mapping[str, Any], given: Mapping[str, Value]) -> None:
        """Hold some channels of each stream, of the sum and of the attention, instead of them."""
        attended, self._attended = self._attended, ()
        if self._next is None:
            return
        name, x_1, value = self._next
        self._written.append(value.differs_from(x_1))
        self._next = name, x_1[:0], value
        fitting = [x for x in attended if x.numel() == x_1.numel()]
        for parameter, entered in given.items():
            x = arguments[parameter]
            if len(fitting) == 1 and x.shape == x_1.shape:
                self._written.append(entered.differs_from(x))
                of_three = (x, x_1, fitting[0].reshape(x.shape))
                a, b, c = (each[..., :CHANNELS].clone() for each in of_three)
                self._samples[parameter] = a, b, c


def _is_gated(x: Tensor, x_1: Tensor, attended: Tensor) -> bool:
    """Return True if `x_1 - x` is the attention times one factor for each video and channel.

    Args:
        x: `[B, F, S, C]`, what enters the block.
        x_1: the sum.
        attended: the output of the attention.
    """
    if x[0, ..., 0].numel() < LEAST_TOKENS:
        return False
    added, attention = x_1.float() - x.float(), attended.float()
    scale = attention.square().sum((1, 2), keepdim=True).clamp(min=torch.finfo().tiny)
    gate = (added * attention).sum((1, 2), keepdim=True) / scale
    left = (added - gate * attention).norm()
    # A block rounds the sum, so that much may be left.
    rounding = torch.finfo(x_1.dtype).eps * x_1.float().norm()
    return bool((left <= TOLERANCE * added.norm() + rounding) & (added.norm() > 8 * rounding))
