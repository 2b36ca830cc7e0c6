"""Residuals of chains of blocks: kept while the blocks run, added in place of running them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...models.block_calls import version
from ..counters import Counters
from .block_visits import BlockVisit, Streams, added, difference

IN_PLACE = (
    "a block wrote into its input, so that what it added cannot be told; every step is computed"
)


@dataclass
class Chain:
    """What the blocks of one chain added, the last time all of them ran.

    Args:
        first, last: the first and the last of them that were called.
        residuals: one a stream; None where the call has no such stream.
    """

    first: BlockVisit
    last: BlockVisit
    residuals: Streams

    @property
    def tensors(self) -> list[Tensor]:
        """All that is kept."""
        return [residual for residual in self.residuals if residual is not None]


@dataclass
class BlockBranch:
    """One branch of guidance: chains by their number."""

    name: str
    chains: dict[int, Chain] = field(default_factory=dict)
    keys: frozenset[Any] = frozenset()
    """The blocks that the chains are of."""
    watched: Tensor | None = None
    """What the change is measured to, where one is."""

    def forget(self) -> None:
        self.chains, self.keys, self.watched = {}, frozenset(), None

    def tensors(self) -> Iterator[Tensor]:
        """All that it holds."""
        for chain in self.chains.values():
            yield from chain.tensors
        if self.watched is not None:
            yield self.watched


class ResidualCapture:
    """Keeps what the blocks of these keys add in one forward."""

    def __init__(self, keys: Collection[Any], video: tuple[int, int]) -> None:
        self.keys = frozenset(keys)
        self._video = video
        self._entered: dict[int, tuple[BlockVisit, Streams, list[int]]] = {}
        self._left: dict[int, tuple[BlockVisit, Streams]] = {}

    def before(self, place: BlockVisit, arguments: Mapping[str, Any]) -> None:
        """A block is about to run."""
        if place.key in self.keys and place.segment not in self._entered:
            streams = place.entering(arguments)
            self._entered[place.segment] = place, streams, _versions(streams)

    def after(self, place: BlockVisit, output: Any) -> None:
        """A block has run."""
        if place.key in self.keys:
            self._left[place.segment] = place, place.leaving(output)

    def chains(self) -> dict[int, Chain] | None:
        """What they added; None if a block wrote into its input, so that it cannot be told."""
        found = {}
        for segment, (first, streams, versions) in self._entered.items():
            if versions != _versions(streams):
                return None
            last, leaving = self._left[segment]
            pairs = enumerate(zip(streams, leaving, strict=True))
            residuals = [
                None
                if x_in is None or x_out is None
                else difference(first, x_in, last, x_out, index, self._video)
                for index, (x_in, x_out) in pairs
            ]
            found[segment] = Chain(first, last, residuals)
        return found


class ResidualReplay:
    """Adds kept residuals in one forward, in place of running blocks."""

    def __init__(self, chains: Mapping[int, Chain], video: tuple[int, int]) -> None:
        self._chains = chains
        self._video = video
        self._entered: dict[int, Streams] = {}

    def has(self, place: BlockVisit) -> bool:
        """Whether there is something to add for the chain of this block."""
        return place.segment in self._chains

    def pass_by(self, place: BlockVisit, arguments: Mapping[str, Any]) -> Any:
        """What a block returns that does not run."""
        chain, streams = self._chains[place.segment], place.entering(arguments)
        entered = self._entered.setdefault(place.segment, streams)
        if place is chain.last:
            zipped = enumerate(zip(entered, streams, chain.residuals, strict=True))
            streams = [
                x
                if x is None or x_in is None or residual is None
                else added(chain.first, x_in, place, x, residual, index, self._video)
                for index, (x_in, x, residual) in zipped
            ]
        return place.returning(arguments, streams)


class BlockForward:
    """One forward: runs blocks, or adds what they added before, as it is told block by block.

    Args:
        step: counted from 1.
        recording: what is kept of it, if anything is.
        adding: what may be added.
        skipped: keys of the blocks that do not run; may change during the forward, by `before` and
            `after`, which see every block that is called and every one that has run.
    """

    def __init__(
        self,
        tally: Counters,
        step: int,
        recording: ResidualCapture,
        adding: ResidualReplay,
        skipped: Collection[Any],
    ) -> None:
        self._tally, self._step = tally, step
        self._recording, self._adding = recording, adding
        self.skipped = frozenset(skipped)
        self.before: Callable[[BlockVisit, Mapping[str, Any]], None] | None = None
        self.after: Callable[[BlockVisit, Mapping[str, Any], Any], None] | None = None

    def visit(self, place: BlockVisit, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A block is called."""
        arguments = place.bind(args, kwargs)
        if self.before is not None:
            self.before(place, arguments)
        computed = place.key not in self.skipped or not self._adding.has(place)
        self._tally.count(self._step, computed=computed)
        if not computed:
            return self._adding.pass_by(place, arguments)
        self._recording.before(place, arguments)
        output = place.run(args, kwargs)
        self._recording.after(place, output)
        if self.after is not None:
            self.after(place, arguments, output)
        return output


def _versions(streams: Streams) -> list[int]:
    return [-1 if x is None else version(x) for x in streams]
