"""Store the residuals of chains of blocks, and add them instead of running the blocks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...engine.reports.user_warnings import IN_PLACE, UserWarnings
from ...models import Adapter
from ...models.block_calls import versions
from ...models.block_stand_in import BlockCall, Streams
from ..counters import Counters
from .block_visits import Key, NumberedBlock, added, numbered_blocks, residual_between, visited
from .mechanism import Mechanism, Original, Video


@dataclass
class Chain:
    """The residuals of a chain of blocks, from the last forward call in which all of them ran.

    Args:
        first: the first block that was called.
        last: the last block that was called.
        residuals: one for each stream, None for a stream that the call did not have.
    """

    first: NumberedBlock
    last: NumberedBlock
    residuals: Streams


@dataclass
class BlockBranch:
    """The state of one guidance branch.

    Args:
        name: name of the branch.
        chains: the stored chains, by number.
        keys: the blocks of the chains.
        compared_with: the tensor that the next change is measured from, if one is.
    """

    name: str
    chains: dict[int, Chain] = field(default_factory=dict)
    keys: frozenset[Key] = frozenset()
    compared_with: Tensor | None = None

    def forget(self) -> None:
        """Remove everything that is stored."""
        self.chains, self.keys, self.compared_with = {}, frozenset(), None

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors that are stored."""
        for chain in self.chains.values():
            yield from (residual for residual in chain.residuals if residual is not None)
        if self.compared_with is not None:
            yield self.compared_with


class ResidualCapture:
    """The residuals of some blocks in one forward call.

    Args:
        keys: the blocks.
        video: videos and frames of the call.
    """

    def __init__(self, keys: Collection[Key], video: Video) -> None:
        self._keys = frozenset(keys)
        self._video = video
        self._entered: dict[int, tuple[NumberedBlock, Streams, list[int]]] = {}
        self._left: dict[int, tuple[NumberedBlock, Streams]] = {}

    def before(self, block: NumberedBlock, call: BlockCall) -> None:
        """Store what enters the first block of a chain."""
        if block.key in self._keys and block.chain not in self._entered:
            streams = block.entering(call)
            self._entered[block.chain] = block, streams, versions(streams)

    def after(self, block: NumberedBlock, output: Any) -> None:
        """Store what leaves the last block of a chain so far."""
        if block.key in self._keys:
            self._left[block.chain] = block, block.leaving(output)

    def chains(self) -> dict[int, Chain] | None:
        """Return the chains by number, None if a block wrote into its input."""
        result = {}
        for number, (first, streams, before) in self._entered.items():
            if before != versions(streams):
                return None
            last, leaving = self._left[number]
            residuals = [
                residual_between(first, x_in, last, x_out, index, self._video)
                for index, (x_in, x_out) in enumerate(zip(streams, leaving, strict=True))
            ]
            result[number] = Chain(first, last, residuals)
        return result


class ResidualReplay:
    """Stored residuals that are added in one forward call.

    Args:
        chains: the stored chains, by number.
        video: videos and frames of the call.
    """

    def __init__(self, chains: Mapping[int, Chain], video: Video) -> None:
        self._chains = chains
        self._video = video
        self._entered: dict[int, Streams] = {}

    def has(self, block: NumberedBlock) -> bool:
        """Return True if there are residuals for the chain of this block."""
        return block.chain in self._chains

    def output(self, block: NumberedBlock, call: BlockCall) -> Any:
        """Return the output of a block that does not run; the last one of a chain adds."""
        chain, streams = self._chains[block.chain], block.entering(call)
        entered = self._entered.setdefault(block.chain, streams)
        if block is chain.last:
            rows = enumerate(zip(entered, streams, chain.residuals, strict=True))
            streams = [
                x
                if x is None or x_in is None or residual is None
                else added(chain.first, x_in, block, x, residual, index, self._video)
                for index, (x_in, x, residual) in rows
            ]
        return call.output(block.blocks, streams)


class BlockForward:
    """One forward call, in which each block runs or its chain's residuals are added.

    Args:
        counters: of the generation.
        step: counted from 1.
        capture: stores residuals of the blocks that run.
        replay: adds the stored residuals.
        skipped: the blocks that do not run. Subclasses may change it during the call.
    """

    def __init__(
        self,
        counters: Counters,
        step: int,
        capture: ResidualCapture,
        replay: ResidualReplay,
        skipped: Collection[Key] = (),
    ) -> None:
        self._counters, self._step = counters, step
        self.capture, self._replay = capture, replay
        self.skipped = frozenset(skipped)

    def visit(self, block: NumberedBlock, call: BlockCall) -> Any:
        """Return the output of one call of a block."""
        self.before(block, call)
        computed = block.key not in self.skipped or not self._replay.has(block)
        self._counters.count(self._step, computed=computed)
        if not computed:
            return self._replay.output(block, call)
        self.capture.before(block, call)
        output = call.run()
        self.capture.after(block, output)
        self.after(block, call, output)
        return output

    def before(self, block: NumberedBlock, call: BlockCall) -> None:
        """Act before each call of a block."""

    def after(self, block: NumberedBlock, call: BlockCall, output: Any) -> None:
        """Act after each block that has run."""


class ChainMechanism(Mechanism[BlockBranch], ABC):
    """A mechanism that stores and adds the residuals of chains of blocks.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        warnings: the warnings of the model.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, warnings: UserWarnings) -> None:
        super().__init__()
        self._model, self._warnings = model, warnings
        self.blocks = numbered_blocks(model, adapter)

    def branch(self, name: str) -> BlockBranch:
        """Return the state of a new guidance branch."""
        return BlockBranch(name)

    def _visit_blocks(self, forward: BlockForward, original: Original) -> Any:
        with visited(self._model, self.blocks, forward.visit):
            return original()

    def _captured(self, forward: BlockForward) -> dict[int, Chain]:
        """Return the captured chains, none with a warning if a block wrote into its input."""
        chains = forward.capture.chains()
        if chains is None:
            self._warnings.warn("in place", IN_PLACE)
        return chains or {}
