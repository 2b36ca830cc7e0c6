"""Observe in one forward call how the hidden state runs through lists of blocks.

A stream is an element of a block's output that *is* an argument of the next block: the same object.
Shapes are not enough, because a text may be as long as the video.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import Adapter, BlockList, Residual, Stream
from .block_calls import Parameters
from .block_stand_in import BlockCall, StandIn, block_stand_in
from .layout import Layout

FORWARD = "by its first forward"
KEYS_AND_VALUES = ("kv_cache", "past_key", "cache_params")


OutputIndices = dict[str, int | None]
"""By parameter, the index of its value in a block's output; None if it is the whole output."""


class Unclear(Exception):
    """An error: the observed calls do not show one way in which the blocks are connected."""


@dataclass
class ObservedList:
    """One block list in the observed forward call.

    Only the output of the last block is held, so that a probe needs no more memory than a forward
    call.

    Args:
        name: attribute of the list in the model.
        blocks: the list.
        order: indices of the blocks, in the order of their calls.
        transitions: for each call but the first, the values that come from the block before it.
        unchanged: for each call, indices of the returned values that are arguments and no tensors.
        entering: arguments of the first block.
        leaving: what the last block returned.
        is_tuple: whether that was a tuple.
        same_shape: arguments of the first block with the shape and dtype of its output.
        objections: reasons why the list cannot be cached.
    """

    name: str
    blocks: nn.ModuleList
    order: list[int] = field(default_factory=list)
    transitions: list[OutputIndices] = field(default_factory=list)
    unchanged: list[dict[str, int]] = field(default_factory=list)
    entering: dict[str, Any] = field(default_factory=dict)
    leaving: tuple[Any, ...] = ()
    is_tuple: bool = False
    same_shape: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    _returned: dict[int, list[weakref.ref[Tensor]]] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _skipped_to: set[int] = field(default_factory=set)

    def call(self, index: int, call: BlockCall) -> Any:
        """Run block `index` and note what this call shows."""
        self._before(index, call.arguments)
        sizes = _sizes(call.arguments)
        output = call.run()
        if sizes != _sizes(call.arguments):
            self.objections.append(f"blocks of {self.name} write into a list they are given")
        self._after(call.arguments, output)
        return output

    def check(self) -> None:
        """Raise an error if the blocks do more than pass streams on.

        Raises:
            Unclear: an output is used elsewhere, or there is an objection.
        """
        used_elsewhere = self._alive - self._skipped_to
        if used_elsewhere:
            raise Unclear(
                f"the model uses the output of block {min(used_elsewhere)} of {self.name} not only "
                "in the next block"
            )
        if self.objections:
            raise Unclear(self.objections[0])

    def _before(self, index: int, arguments: Mapping[str, Any]) -> None:
        self._note_outputs_alive(index, arguments)
        for name, value in arguments.items():
            if value is not None and any(word in name for word in KEYS_AND_VALUES):
                self.objections.append(
                    f"blocks of {self.name} take {name}, in which they may store something for "
                    "later calls"
                )
        if self.order:
            self.transitions.append(_passed_on(self.leaving, self.is_tuple, arguments))
        else:
            self.entering = dict(arguments)
        self.order.append(index)

    def _after(self, arguments: Mapping[str, Any], output: Any) -> None:
        self.is_tuple = isinstance(output, tuple)
        self.leaving = output if self.is_tuple else (output,)
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


class Probe:
    """An observer of block lists in one forward call, which makes an adapter from it.

    Args:
        model: the model, of an unknown class.
        names: attributes of its block lists.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self._observed = {name: ObservedList(name, getattr(model, name)) for name in names}
        self._calls: list[str] = []

    def lists(self) -> dict[str, tuple[object, ...]]:
        """Return the lists of stand-ins for the forward call to observe."""
        return {
            name: tuple(self._stand_in(observed, index) for index in range(len(observed.blocks)))
            for name, observed in self._observed.items()
        }

    def _stand_in(self, observed: ObservedList, index: int) -> StandIn:
        def handle(call: BlockCall) -> Any:
            if not self._calls or self._calls[-1] != observed.name:
                self._calls.append(observed.name)
            return observed.call(index, call)

        block = observed.blocks[index]
        return block_stand_in(block, Parameters(block), handle)

    def adapter(self, batch: int) -> Adapter:
        """Return the adapter that follows from the observed forward call.

        Args:
            batch: batch size of the model's input.

        Raises:
            Unclear: the call does not show how the blocks are connected; says why.
        """
        ran = [self._observed[name] for name in dict.fromkeys(self._calls)]
        if not ran:
            raise Unclear("no block of these lists ran in the first forward call")
        if len(self._calls) > len(ran):
            names = " and ".join(observed.name for observed in ran)
            raise Unclear(f"the blocks of {names} are interleaved")
        lists: list[BlockList] = []
        for observed in ran:
            lists += self._parts(observed, lists[0] if lists else None, batch)
        for observed in ran:
            observed.check()
        measured = tuple(dict.fromkeys(blocks.attribute for blocks in lists if not blocks.joined))
        return Adapter(
            lists=tuple(lists),
            residuals={"block": Residual(measured)},
            frames=_one_frame,
            origin=FORWARD,
        )

    def _parts(
        self, observed: ObservedList, first: BlockList | None, batch: int
    ) -> list[BlockList]:
        name, count = observed.name, len(observed.blocks)
        if observed.order != list(range(count)):
            raise Unclear(f"the {count} blocks of {name} did not each run once, in order")
        indices = _output_indices(observed)
        streams = [p for p, index in indices.items() if _leaves(observed, index)]
        streams.sort(key=lambda p: (_is_text(p), -observed.entering[p].numel()))
        if not streams:
            raise Unclear(f"no tensor runs through {name} from block to block")
        passed = _passed(observed, indices)
        joined = self._joined(observed, streams, first, batch)
        whole = BlockList(
            name,
            tuple(Stream(p, indices[p]) for p in streams),
            Layout.FRAME_MAJOR,
            passed=tuple(Stream(n, index) for n, index in passed.items()),
            output_length=len(observed.leaving) if observed.is_tuple else 0,
            joined=joined,
            by_index=True,
        )
        return _cut(whole, observed, streams)

    def _joined(
        self, observed: ObservedList, streams: list[str], first: BlockList | None, batch: int
    ) -> tuple[str, ...]:
        """Return the first list's streams that this list's stream joins; none if they are equal."""
        x = observed.entering[streams[0]]
        if x.ndim != 3 or x.shape[0] != batch:
            raise Unclear(
                f"{streams[0]} of {observed.name} has shape {tuple(x.shape)}; expected [batch, "
                f"tokens, channels] with the batch of the model's input, {batch}"
            )
        if first is None:
            return ()
        start = self._observed[first.attribute]
        known = {stream.parameter: start.entering[stream.parameter] for stream in first.streams}
        if all(p in known and known[p].shape == observed.entering[p].shape for p in streams):
            return ()
        leaving = {s.parameter: start.leaving[s.output or 0] for s in first.streams}
        for order in (list(leaving), list(leaving)[::-1]):
            parts = [leaving[parameter] for parameter in order]
            if len(streams) == 1 and len(parts) > 1 and torch.equal(torch.cat(parts, dim=1), x):
                return tuple(order)
        raise Unclear(f"the streams of {observed.name} are not those of {first.attribute}")


def batch_of(arguments: Mapping[str, Any]) -> int:
    """Return the batch size of the first tensor of two or more dimensions, or list of tensors."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.ndim >= 2:
            return value.shape[0]
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return len(value)
    return 1


def _one_frame(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    return batch_of(arguments), 1


def _passed_on(
    leaving: tuple[Any, ...], is_tuple: bool, arguments: Mapping[str, Any]
) -> OutputIndices:
    return {
        name: index if is_tuple else None
        for index, value in enumerate(leaving)
        for name, given in arguments.items()
        if value is given and isinstance(value, Tensor)
    }


def _output_indices(observed: ObservedList) -> OutputIndices:
    """Return the output index of each stream, if all transitions have the same."""
    result: OutputIndices = {}
    for transition in observed.transitions:
        for name, index in transition.items():
            if result.setdefault(name, index) != index:
                raise Unclear(
                    f"blocks of {observed.name} pass {name} on from different elements of their "
                    "output"
                )
    indices = [index for index in result.values() if index is not None]
    if len(set(indices)) < len(indices):
        raise Unclear(f"blocks of {observed.name} pass one value on as several arguments")
    if result:
        return result
    # The model changes what leaves each block, so no output is an argument of the next block.
    if len(observed.same_shape) == 1 and not observed.is_tuple:
        return {observed.same_shape[0]: None}
    raise Unclear(
        f"what leaves a block of {observed.name} is not what enters the next one, and its shape "
        "does not show which argument it is"
    )


def _passed(observed: ObservedList, indices: OutputIndices) -> dict[str, int]:
    """Return the output index of each argument that the blocks return unchanged."""
    others = set(range(len(observed.leaving))) - set(indices.values())
    unclear = [i for i in others if observed.leaving[i] is not None] if observed.is_tuple else []
    passed = {name: i for name, i in observed.unchanged[0].items() if i in unclear}
    lost = sorted(set(unclear) - set(passed.values()))
    if lost:
        raise Unclear(f"nothing takes element {lost[0]} of the output of blocks of {observed.name}")
    return passed


def _leaves(observed: ObservedList, index: int | None) -> bool:
    """Return True if the value leaves the last block."""
    return isinstance(observed.leaving[index or 0], Tensor)


def _cut(whole: BlockList, observed: ObservedList, streams: list[str]) -> list[BlockList]:
    """Return the parts of a list; one begins where a stream is not the last block's output."""
    breaks = [
        index
        for index, transition in enumerate(observed.transitions, 1)
        if any(stream not in transition for stream in streams)
    ]
    if not breaks:
        return [whole]
    starts, stops = (0, *breaks), (*breaks, None)
    return [
        replace(whole, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)
    ]


def _sizes(arguments: Mapping[str, Any]) -> dict[str, int]:
    return {n: len(v) for n, v in arguments.items() if isinstance(v, list | dict)}


def _is_text(parameter: str) -> bool:
    return any(word in parameter for word in ("encoder", "text", "txt", "context", "caption"))


def _same_shape(value: Any, output: Any) -> bool:
    both = isinstance(value, Tensor) and isinstance(output, Tensor)
    return both and value.shape == output.shape and value.dtype == output.dtype
