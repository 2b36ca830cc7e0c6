"""Stand-ins for a model's blocks during one forward.

While a patched model runs, its block lists are shadowed by tuples of stand-ins. The lists
themselves, the blocks and their forwards stay untouched, so `state_dict`, compiled blocks and hooks
of other libraries do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...models import BlockList, BlockRun
from ...models.block_calls import Parameters


class Observer(Protocol):
    """Sees a block's call in a computed step."""

    @property
    def taps(self) -> Sequence[str]:
        """Names of the submodules of the block whose outputs it needs, where there are such."""

    def before(self, run: BlockRun) -> None:
        """The block is about to run."""

    def after(self, run: BlockRun) -> None:
        """The block has run."""


class Before:
    """Calls `act` with the run before the block."""

    taps: Sequence[str] = ()

    def __init__(self, act: Callable[[BlockRun], None]) -> None:
        self._act = act

    def before(self, run: BlockRun) -> None:
        self._act(run)

    def after(self, run: BlockRun) -> None:
        """Nothing is needed from after the block."""


class After:
    """Calls `act` with the run after the block."""

    taps: Sequence[str] = ()

    def __init__(self, act: Callable[[BlockRun], None]) -> None:
        self._act = act

    def before(self, run: BlockRun) -> None:
        """Nothing is needed from before the block."""

    def after(self, run: BlockRun) -> None:
        self._act(run)


class ObservedBlock:
    """Calls a block and lets observers see what it was given and what it returned."""

    def __init__(
        self,
        block: nn.Module,
        blocks: BlockList,
        parameters: Parameters,
        observers: Sequence[Observer],
    ) -> None:
        self._block = block
        self._blocks = blocks
        self._parameters = parameters
        self._observers = observers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._parameters.bind(args, kwargs)
        run = BlockRun(self._block, arguments, self._blocks.streams[0])
        for observer in self._observers:
            observer.before(run)
        with _tapped(run, self._observers):
            run.output = self._block(*args, **kwargs)
        for observer in self._observers:
            observer.after(run)
        return run.output

    def __getattr__(self, name: str) -> Any:
        # Models look at their blocks' attributes, `transformer_blocks[0].norm1` for example.
        return getattr(self._block, name)


class ReusedBlocks:
    """Stands for all blocks of a list in a reused step: adds the residuals to the streams.

    `add` is None where the list has none, and the streams pass. It writes into the streams, but
    never into memory of what the caller gave to the model, whose storages are `given`.
    """

    def __init__(
        self,
        block: nn.Module,
        blocks: BlockList,
        parameters: Parameters,
        add: Callable[[Sequence[Tensor | None]], None] | None,
        given: Container[int],
    ) -> None:
        self._block = block
        self._blocks = blocks
        self._parameters = parameters
        self._add = add
        self._given = given

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._parameters.bind(args, kwargs)
        leaving = (*self._blocks.streams, *self._blocks.passed)
        values = [arguments.get(stream.parameter) for stream in leaving]
        if self._add is not None:
            count = len(self._blocks.streams)
            values[:count] = [_writable(x, self._given) for x in values[:count]]
            self._add(values[:count])
        places = [stream.output for stream in leaving if stream.output is not None]
        if not places:
            return values[0]
        by_place = dict(zip(places, values, strict=True))
        count = max(self._blocks.output_length, max(by_place) + 1)
        return tuple(by_place.get(place) for place in range(count))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


class StandIns:
    """Makes the stand-ins of one list, or of a part of it.

    Args:
        blocks: the list, or the part.
        modules: its blocks, by index in the whole list.
    """

    def __init__(self, blocks: BlockList, modules: Mapping[int, nn.Module]) -> None:
        self._blocks = blocks
        self._modules = dict(modules)
        self.first_index, self.last_index = min(modules), max(modules)
        self.first, self.last = modules[self.first_index], modules[self.last_index]
        self._parameters = Parameters(self.first)

    def observed(
        self, at_ends: Sequence[Observer], others: Mapping[int, Sequence[Observer]]
    ) -> dict[int, object]:
        """What stands for each block in a computed step, by index in the whole list.

        Args:
            at_ends: see the first and the last block.
            others: see the block of that index, after `at_ends`.
        """
        found: dict[int, object] = dict(self._modules)
        ends = {self.first_index, self.last_index} if at_ends else set()
        for index in ends | (set(others) & set(found)):
            observers = (*(at_ends if index in ends else ()), *others.get(index, ()))
            block = self._modules[index]
            found[index] = ObservedBlock(block, self._blocks, self._parameters, observers)
        return found

    def reused(
        self,
        add: Callable[[Sequence[Tensor | None]], None] | None,
        given: Container[int] = (),
    ) -> dict[int, object]:
        """What stands for the blocks in a reused step: one element, whatever their number; where
        each is needed in its place, the first adds and the others pass the streams on."""
        adding = ReusedBlocks(self.first, self._blocks, self._parameters, add, given)
        found: dict[int, object] = {self.first_index: adding}
        if self._blocks.is_part or self._blocks.by_index:
            for index, block in self._modules.items():
                passing = ReusedBlocks(block, self._blocks, self._parameters, None, ())
                found.setdefault(index, passing)
        return found


def _writable(x: Tensor | None, given: Container[int]) -> Tensor | None:
    """`x`, or a copy if it is the caller's, or if several elements share a place in memory.

    Also a copy whose channels are contiguous, as those of a block's output are, where they are not.
    What a convolution has patchified is a transposed view, which the layers after the blocks would
    have to copy anyway; the add took 0.17 ms on such a one of 256 KiB and 0.04 ms on the copy.
    """
    if x is None:
        return None
    if x.untyped_storage()._cdata in given:
        return x.clone(memory_format=torch.contiguous_format)
    return x if x.stride(-1) == 1 and 0 not in x.stride() else x.contiguous()


@contextmanager
def _tapped(run: BlockRun, observers: Sequence[Observer]) -> Iterator[None]:
    names = [name for observer in observers for name in observer.taps]
    modules = {name: getattr(run.block, name, None) for name in names}
    handles = [
        module.register_forward_hook(_recorder(run, name))
        for name, module in modules.items()
        if isinstance(module, nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(run: BlockRun, name: str) -> Callable[[nn.Module, Any, Any], None]:
    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        if name in run.tap_outputs:
            raise RuntimeError(
                f"{type(run.block).__name__}.{name} ran more than once in its block (chunked?), so "
                'that its residual cannot be told; measure another: patch(..., cache_res="block")'
            )
        run.tap_outputs[name] = output
        own = run.block.named_parameters(recurse=False)
        run.parameters = {name: parameter.detach() for name, parameter in own}

    return record
