"""One block list in the forward call that is watched: what passes from block to block.

A stream is an element of a block's output that *is* an argument of the next block: the same object.
Shapes are not enough, because a text may be as long as the video. The values are compared too,
because the model, or a block, may write into the object.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from ..block_stand_in import BlockCall
from .unclear import Unclear
from .value_check import Value

OutputIndices = dict[str, int | None]
"""By parameter, the index of its value in a block's output; None if it is the whole output."""
KEYS_AND_VALUES = ("kv_cache", "past_key", "cache_params", "inference_params")


@dataclass
class ObservedList:
    """One block list in the observed forward call.

    Only the output of the last block is held, so that a probe needs no more memory than a forward
    call.

    Args:
        name: dotted name of the list in the model.
        blocks: the list.
        order: indices of the blocks, in the order of their calls.
        transitions: for each call but the first, the values that come from the block before it.
        unchanged: for each call, indices of the returned values that are arguments and no tensors.
        entering: arguments of the first block.
        leaving: what the last block returned.
        is_tuple: whether that was a tuple.
        same_shape: arguments of the first block with the shape and dtype of its output.
        objections: reasons why the list cannot be cached.
        joins: for each argument of the first block, the elements of the output of another list
            that the model has concatenated along the tokens to make it.
    """

    name: str
    blocks: list[nn.Module]
    order: list[int] = field(default_factory=list)
    transitions: list[OutputIndices] = field(default_factory=list)
    unchanged: list[dict[str, int]] = field(default_factory=list)
    entering: dict[str, Any] = field(default_factory=dict)
    leaving: tuple[Any, ...] = ()
    is_tuple: bool = False
    same_shape: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    joins: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _returned: dict[int, list[weakref.ref[Tensor]]] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _skipped_to: set[int] = field(default_factory=set)
    _left: dict[int, Value] = field(default_factory=dict)
    _between: list[dict[str, Tensor | bool]] = field(default_factory=list)
    _given: dict[str, tuple[Tensor, Value]] = field(default_factory=dict)
    _inside: list[tuple[str, Tensor | bool]] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)

    @property
    def has_run(self) -> bool:
        """Return True if each block has run once, in order."""
        return self.order == list(range(len(self.blocks)))

    def before(self, index: int, call: BlockCall) -> None:
        """Note what enters block `index`."""
        arguments = call.arguments
        self._note_outputs_alive(index, arguments)
        for name, value in arguments.items():
            if value is not None and any(word in name for word in KEYS_AND_VALUES):
                self.objections.append(
                    f"blocks of {self.name} take {name}, in which they may store something for "
                    "later calls"
                )
        if self.order:
            self.transitions.append(self._passed_on(arguments))
        else:
            self.entering = dict(arguments)
        self.order.append(index)
        self._sizes = _sizes(arguments)
        self._given = {name: (x, Value(x)) for name, x in _tensors(arguments)}

    def after(self, call: BlockCall, output: Any) -> None:
        """Note what block `index` has returned, and what it has written to."""
        arguments = call.arguments
        if self._sizes != _sizes(arguments):
            self.objections.append(f"blocks of {self.name} write into a list they are given")
        for name, (x, value) in self._given.items():
            self._inside.append((name, value.differs_from(x)))
        self._given = {}
        self.is_tuple = isinstance(output, tuple | list)
        self.leaving = tuple(output) if isinstance(output, tuple | list) else (output,)
        if len(self.order) == 1 and not self.is_tuple:
            self.same_shape = [n for n, value in arguments.items() if _same_shape(value, output)]
        self.unchanged.append(
            {
                name: index
                for index, value in enumerate(self.leaving)
                for name, given in arguments.items()
                if value is given and not isinstance(value, Tensor) and value is not None
            }
        )
        tensors = [value for value in self.leaving if isinstance(value, Tensor)]
        new = [x for x in tensors if not any(x is given for given in arguments.values())]
        self._returned[self.order[-1]] = [weakref.ref(x) for x in new]
        self._left = {id(x): Value(x) for x in tensors}

    def check(self, streams: list[str]) -> None:
        """Raise an error if the blocks do more than pass streams on.

        Args:
            streams: parameters of the hidden streams.

        Raises:
            Unclear: an output is used elsewhere, a block writes into something else than a stream,
                or there is an objection.
        """
        used_elsewhere = self._alive - self._skipped_to
        if used_elsewhere:
            raise Unclear(
                f"the model uses the output of block {min(used_elsewhere)} of {self.name} not only "
                "in the next block"
            )
        for name, has_changed in self._inside:
            if name not in streams and has_changed:
                self.objections.append(
                    f"blocks of {self.name} write into {name}, which is no hidden stream"
                )
        if self.objections:
            raise Unclear(self.objections[0])

    def joined_in(self, x: Any) -> tuple[int, ...]:
        """Return the elements of the last output that make `x`, `[B, N, C]`, in their order.

        They are concatenated along the tokens, dimension 1. The result is empty if they do not.
        """
        if not isinstance(x, Tensor) or x.ndim != 3:
            return ()
        elements = [i for i, each in enumerate(self.leaving) if isinstance(each, Tensor)]
        for order in permutations(elements) if 1 < len(elements) < 4 else ():
            parts = [self.leaving[index] for index in order]
            if any(part.ndim != 3 for part in parts):
                return ()
            is_whole = sum(part.shape[1] for part in parts) == x.shape[1]
            if is_whole and all(torch.equal(*pair) for pair in _pieces(parts, x)):
                return order
        return ()

    def changed(self, transition: int, stream: str) -> bool:
        """Return True if the model wrote into a stream between two blocks."""
        return bool(self._between[transition].get(stream, False))

    def _passed_on(self, arguments: Mapping[str, Any]) -> OutputIndices:
        handed_on: OutputIndices = {}
        between: dict[str, Tensor | bool] = {}
        for index, value in enumerate(self.leaving):
            for name, given in arguments.items():
                if value is given and isinstance(value, Tensor):
                    handed_on[name] = index if self.is_tuple else None
                    between[name] = self._left[id(value)].differs_from(value)
        self._between.append(between)
        return handed_on

    def _note_outputs_alive(self, index: int, arguments: Mapping[str, Any]) -> None:
        """Note outputs that are alive two blocks later.

        They are used elsewhere, except those that a later block takes, as in long skips.
        """
        given = {id(value) for value in arguments.values()}
        for earlier, references in self._returned.items():
            values = [reference() for reference in references]
            alive = [value for value in values if value is not None]
            if earlier <= index - 2 and any(id(value) in given for value in alive):
                self._skipped_to.add(earlier)
            elif earlier <= index - 2 and alive:
                self._alive.add(earlier)


def _pieces(parts: Sequence[Tensor], x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each part with the piece of `x` that lies in its place."""
    pieces = x.split_with_sizes([part.shape[1] for part in parts], dim=1)
    return zip(parts, pieces, strict=True)


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors among the arguments, and those in their lists, tuples and dictionaries."""
    for name, value in arguments.items():
        inside = value.values() if isinstance(value, dict) else value
        several = inside if isinstance(value, list | tuple | dict) else (value,)
        for number, each in enumerate(several):
            if isinstance(each, Tensor):
                yield (name if each is value else f"{name}[{number}]"), each


def _sizes(arguments: Mapping[str, Any]) -> dict[str, int]:
    return {n: len(v) for n, v in arguments.items() if isinstance(v, list | dict)}


def _same_shape(value: Any, output: Any) -> bool:
    both = isinstance(value, Tensor) and isinstance(output, Tensor)
    return both and value.shape == output.shape and value.dtype == output.dtype
