"""How the hidden state runs through lists of blocks, watched in one forward.

A stream is an element of what a block returns that *is* an argument of the next block: the same
object. Shapes do not tell, for a text may be as long as the video.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import Adapter, BlockList, Residual, Stream
from .layout import Layout
from .other_libraries.forward_wrappers import own_forward

FORWARD = "by its first forward"
KEYS_AND_VALUES = ("kv_cache", "past_key", "cache_params")


class Unclear(Exception):
    """What was watched can be read in more than one way, or in none."""


@dataclass
class Transition:
    """From one block to the next of its list: parameter and place of each value handed on."""

    chained: dict[str, int | None]


@dataclass
class Watched:
    """One list in one forward.

    Only what the last block returned is held, so that a probe needs no more memory than a forward.
    """

    name: str
    blocks: nn.ModuleList
    order: list[int] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    unchanged: list[dict[str, int]] = field(default_factory=list)
    entering: dict[str, Any] = field(default_factory=dict)
    leaving: tuple[Any, ...] = ()
    is_tuple: bool = False
    alike: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    _returned: dict[int, list[weakref.ref[Tensor]]] = field(default_factory=dict)
    _held: set[int] = field(default_factory=set)
    _taken: set[int] = field(default_factory=set)
    _sizes: dict[str, int] = field(default_factory=dict)

    def before(self, index: int, arguments: Mapping[str, Any]) -> None:
        """Block `index` is called."""
        self._look_for_what_is_held(index, arguments)
        self._look_for_caches(arguments)
        if not self.order:
            self.entering = dict(arguments)
        else:
            self.transitions.append(Transition(_handed_on(self.leaving, self.is_tuple, arguments)))
        self.order.append(index)

    def after(self, arguments: Mapping[str, Any], output: Any) -> None:
        """It has returned."""
        self.is_tuple = isinstance(output, tuple)
        self.leaving = output if self.is_tuple else (output,)
        if len(self.order) == 1 and not self.is_tuple:
            self.alike = [n for n, value in arguments.items() if _alike(value, output)]
        self.unchanged.append(
            {
                name: place
                for place, value in enumerate(self.leaving)
                for name, given in arguments.items()
                if value is given and not isinstance(value, Tensor) and value is not None
            }
        )
        made = [v for v in self.leaving if isinstance(v, Tensor)]
        own = [v for v in made if not any(v is given for given in arguments.values())]
        self._returned[self.order[-1]] = [weakref.ref(value) for value in own]
        if self._sizes != _sizes(arguments):
            self.objections.append(f"blocks of {self.name} write into a list they are given")

    def _look_for_what_is_held(self, index: int, arguments: Mapping[str, Any]) -> None:
        """A block's output that is alive two blocks later is used elsewhere, but where a later
        block takes it, as long skips do."""
        given = {id(value) for value in arguments.values()}
        for earlier, references in self._returned.items():
            values = [reference() for reference in references]
            alive = [value for value in values if value is not None]
            if earlier <= index - 2 and any(id(value) in given for value in alive):
                self._taken.add(earlier)
            elif earlier <= index - 2 and alive:
                self._held.add(earlier)

    def check(self) -> None:
        """Raises Unclear where the blocks do more than to hand streams on."""
        if self._held - self._taken:
            raise Unclear(
                f"what block {min(self._held - self._taken)} of {self.name} returns is kept for "
                "something else than the next block"
            )
        if self.objections:
            raise Unclear(self.objections[0])

    def _look_for_caches(self, arguments: Mapping[str, Any]) -> None:
        self._sizes = _sizes(arguments)
        for name, value in arguments.items():
            if value is not None and any(word in name for word in KEYS_AND_VALUES):
                self.objections.append(
                    f"blocks of {self.name} take {name}, in which they may leave something for "
                    "later calls"
                )


class Probe:
    """Watches lists of blocks in one forward and says what they are.

    Args:
        model: of which nothing is known.
        names: of the lists.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self._model = model
        self._watched = {name: Watched(name, getattr(model, name)) for name in names}
        self._calls: list[str] = []

    def lists(self) -> dict[str, tuple[object, ...]]:
        """What stands for the lists in the forward that is watched."""
        return {
            name: tuple(_Watching(self, watched, i) for i in range(len(watched.blocks)))
            for name, watched in self._watched.items()
        }

    def called(self, watched: Watched) -> None:
        """A block of this list is called."""
        if not self._calls or self._calls[-1] != watched.name:
            self._calls.append(watched.name)

    def adapter(self, batch: int) -> Adapter:
        """What the forward has shown.

        Args:
            batch: of the model's input.

        Raises:
            Unclear: says why it cannot be told.
        """
        ran = [self._watched[name] for name in dict.fromkeys(self._calls)]
        if not ran:
            raise Unclear("no block of these lists ran in the first forward")
        if len(self._calls) > len(ran):
            raise Unclear(f"blocks of {' and '.join(w.name for w in ran)} take turns")
        lists: list[BlockList] = []
        for watched in ran:
            lists += self._parts(watched, lists[0] if lists else None, batch)
        for watched in ran:
            watched.check()
        names = tuple(dict.fromkeys(blocks.attribute for blocks in lists if not blocks.joined))
        return Adapter(
            lists=tuple(lists),
            residuals={"block": Residual(names)},
            frames=_one_frame,
            origin=FORWARD,
        )

    def _parts(self, watched: Watched, first: BlockList | None, batch: int) -> list[BlockList]:
        name, count = watched.name, len(watched.blocks)
        if watched.order != list(range(count)):
            raise Unclear(f"the {count} blocks of {name} did not each run once, in order")
        mapping = _mapping(watched)
        streams = [p for p, place in mapping.items() if _is_kept(watched, place)]
        streams.sort(key=lambda p: (_is_text(p), -watched.entering[p].numel()))
        if not streams:
            raise Unclear(f"no tensor runs through {name} from block to block")
        unnamed = set(range(len(watched.leaving))) - set(mapping.values())
        unclear = [p for p in unnamed if watched.leaving[p] is not None] if watched.is_tuple else []
        passed = {n: p for n, p in watched.unchanged[0].items() if p in unclear}
        lost = sorted(set(unclear) - set(passed.values()))
        if lost:
            raise Unclear(f"element {lost[0]} of what blocks of {name} return goes nowhere")
        joined = self._joined(watched, streams, first, batch)
        whole = BlockList(
            name,
            tuple(Stream(p, mapping[p]) for p in streams),
            Layout.FRAME_MAJOR,
            passed=tuple(Stream(n, p) for n, p in passed.items()),
            output_length=len(watched.leaving) if watched.is_tuple else 0,
            joined=joined,
            by_index=True,
        )
        return _cut(whole, watched, streams, count)

    def _joined(
        self, watched: Watched, streams: list[str], first: BlockList | None, batch: int
    ) -> tuple[str, ...]:
        """Streams of the first list that this one's is made of; none where it has the same."""
        x = watched.entering[streams[0]]
        if x.ndim != 3 or x.shape[0] != batch:
            raise Unclear(
                f"{streams[0]} of {watched.name} has shape {tuple(x.shape)}; expected [batch, "
                f"tokens, channels] with the batch of the model's input, {batch}"
            )
        if first is None:
            return ()
        start = self._watched[first.attribute]
        known = {stream.parameter: start.entering[stream.parameter] for stream in first.streams}
        if all(p in known and known[p].shape == watched.entering[p].shape for p in streams):
            return ()
        leaving = {s.parameter: start.leaving[s.output or 0] for s in first.streams}
        for order in (list(leaving), list(leaving)[::-1]):
            parts = [leaving[parameter] for parameter in order]
            if len(streams) == 1 and len(parts) > 1 and torch.equal(torch.cat(parts, dim=1), x):
                return tuple(order)
        raise Unclear(f"the streams of {watched.name} are not those of {first.attribute}")


class _Watching:
    """Calls a block and tells the probe."""

    def __init__(self, probe: Probe, watched: Watched, index: int) -> None:
        self._probe, self._watched, self._index = probe, watched, index
        self._block = watched.blocks[index]
        self._names = list(inspect.signature(own_forward(self._block)).parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(zip(self._names, args, strict=False)) | kwargs
        self._probe.called(self._watched)
        self._watched.before(self._index, arguments)
        output = self._block(*args, **kwargs)
        self._watched.after(arguments, output)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


def _one_frame(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    return batch_of(arguments), 1


def batch_of(arguments: Mapping[str, Any]) -> int:
    """Of the first tensor of two or more dimensions that the model is given, or of a list."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.ndim >= 2:
            return value.shape[0]
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return len(value)
    return 1


def _handed_on(
    leaving: tuple[Any, ...], is_tuple: bool, arguments: Mapping[str, Any]
) -> dict[str, int | None]:
    return {
        name: place if is_tuple else None
        for place, value in enumerate(leaving)
        for name, given in arguments.items()
        if value is given and isinstance(value, Tensor)
    }


def _mapping(watched: Watched) -> dict[str, int | None]:
    """Parameter and place of each stream: as all transitions agree."""
    found: dict[str, int | None] = {}
    for transition in watched.transitions:
        for name, place in transition.chained.items():
            if found.setdefault(name, place) != place:
                raise Unclear(f"blocks of {watched.name} hand {name} on from different places")
    places = [place for place in found.values() if place is not None]
    if len(set(places)) < len(places):
        raise Unclear(f"blocks of {watched.name} hand one value on as several arguments")
    if found:
        return found
    # Something is done to what leaves each block, so that identity does not tell.
    if len(watched.alike) == 1 and not watched.is_tuple:
        return {watched.alike[0]: None}
    raise Unclear(
        f"what leaves a block of {watched.name} is not what enters the next one, and which of its "
        "arguments it is cannot be told by shape"
    )


def _is_kept(watched: Watched, place: int | None) -> bool:
    """Whether a value leaves the last block."""
    return isinstance(watched.leaving[place or 0], Tensor)


def _cut(whole: BlockList, watched: Watched, streams: list[str], count: int) -> list[BlockList]:
    """The parts of a list: a new one where a stream does not come straight from the last block."""
    breaks = [
        index
        for index, transition in enumerate(watched.transitions, 1)
        if any(stream not in transition.chained for stream in streams)
    ]
    starts, stops = (0, *breaks), (*breaks, None)
    if not breaks:
        return [whole]
    return [
        replace(whole, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)
    ]


def _sizes(arguments: Mapping[str, Any]) -> dict[str, int]:
    return {n: len(v) for n, v in arguments.items() if isinstance(v, list | dict)}


def _is_text(parameter: str) -> bool:
    return any(word in parameter for word in ("encoder", "text", "txt", "context", "caption"))


def _alike(value: Any, output: Any) -> bool:
    both = isinstance(value, Tensor) and isinstance(output, Tensor)
    return both and value.shape == output.shape and value.dtype == output.dtype
