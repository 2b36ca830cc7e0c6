"""Stand-ins for the blocks of a list: they observe a computed step or add in a reused one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn

from ...models import BlockList, BlockRun
from ...models.block_calls import Parameters
from ...models.block_stand_in import BlockCall, StandIn, Streams, block_stand_in
from ...models.other_libraries.fsdp import fsdp_groups

Add = Callable[[Streams], Streams]
"""Returns the streams of a list with their residuals added, in new tensors."""


class Observer(Protocol):
    """An object that a stand-in calls before and after its block runs in a computed step."""

    @property
    def taps(self) -> Sequence[str]:
        """Return the names of the block's submodules whose outputs are needed, if it has them."""
        return ()

    def before(self, run: BlockRun) -> None:
        """Act before the block runs."""
        return

    def tapped(self, run: BlockRun, name: str) -> None:
        """Act after a submodule of the block has run, whose output is in `run.tap_outputs`."""
        return

    def after(self, run: BlockRun) -> None:
        """Act after the block has run."""
        return


class Before(Observer):
    """An observer that calls `act` before the block runs."""

    def __init__(self, act: Callable[[BlockRun], None]) -> None:
        self._act = act

    def before(self, run: BlockRun) -> None:
        """Call `act`."""
        self._act(run)


class After(Observer):
    """An observer that calls `act` after the block has run."""

    def __init__(self, act: Callable[[BlockRun], None]) -> None:
        self._act = act

    def after(self, run: BlockRun) -> None:
        """Call `act`."""
        self._act(run)


class StandIns:
    """The stand-ins of one block list, or of a part of it.

    Args:
        blocks: the list or the part.
        modules: its blocks, by index in the whole list.
    """

    def __init__(self, blocks: BlockList, modules: Mapping[int, nn.Module]) -> None:
        self.blocks = blocks
        self._modules = dict(modules)
        self.first_index, self.last_index = min(modules), max(modules)
        self.first, self.last = modules[self.first_index], modules[self.last_index]
        self._parameters = Parameters(self.first)

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the indices of the blocks in the whole list."""
        return tuple(self._modules)

    def observed(
        self, at_ends: Sequence[Observer], others: Mapping[int, Sequence[Observer]]
    ) -> dict[int, object]:
        """Return the blocks of a computed step, by index in the whole list.

        Args:
            at_ends: observers of the first and the last block.
            others: observers of the block of each index, called after `at_ends`.
        """
        result: dict[int, object] = dict(self._modules)
        ends = {self.first_index, self.last_index} if at_ends else set()
        for index in ends | (set(others) & set(result)):
            observers = (*(at_ends if index in ends else ()), *others.get(index, ()))
            result[index] = self.observe(self._modules[index], observers, index)
        return result

    def observe(self, block: nn.Module, observers: Sequence[Observer], index: int = -1) -> StandIn:
        """Return a stand-in that runs `block` between the calls of its observers."""

        def handle(call: BlockCall) -> Any:
            run = BlockRun(block, call.arguments, self.blocks.streams[0], index=index)
            for observer in observers:
                observer.before(run)
            with _tapped(run, observers):
                run.output = call.run()
            for observer in observers:
                observer.after(run)
            return run.output

        return block_stand_in(block, self._parameters, handle)

    def reused(self, add: Add | None) -> dict[int, object]:
        """Return the blocks of a reused step, by index in the whole list.

        The first one adds. The others are left out, except where the model needs all of them; then
        they return the streams unchanged.

        Args:
            add: adds the residuals to the streams; None if the list has none.
        """
        result: dict[int, object] = {self.first_index: self._reuse(self.first, add)}
        if self.blocks.is_part or self.blocks.by_index:
            for index, block in self._modules.items():
                result.setdefault(index, self._reuse(block, None))
        return result

    def _reuse(self, block: nn.Module, add: Add | None) -> StandIn:
        def handle(call: BlockCall) -> Any:
            streams = call.values(self.blocks.streams)
            return call.output(self.blocks, streams if add is None else add(streams))

        return block_stand_in(block, self._parameters, handle)


@contextmanager
def _tapped(run: BlockRun, observers: Sequence[Observer]) -> Iterator[None]:
    names = [name for observer in observers for name in observer.taps]
    modules = {name: getattr(run.block, name, None) for name in names}
    handles = [
        module.register_forward_hook(_recorder(run, name, observers))
        for name, module in modules.items()
        if isinstance(module, nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(
    run: BlockRun, name: str, observers: Sequence[Observer]
) -> Callable[[nn.Module, Any, Any], None]:
    def record(_module: nn.Module, args: Any, output: Any) -> None:
        if name in run.tap_outputs:
            raise RuntimeError(
                f"{type(run.block).__name__}.{name} ran more than once in its block (with chunking "
                "on?), so its residual cannot be measured; measure the whole block instead: "
                'patch(..., cache_res="block")'
            )
        run.tap_outputs[name], run.tap_inputs[name] = output, args
        own = run.block.named_parameters(recurse=False)
        run.parameters = {name: parameter.detach() for name, parameter in own}
        if fsdp_groups(run.block):
            # After the block, FSDP frees the memory of its parameters.
            run.parameters = {name: own.clone() for name, own in run.parameters.items()}
        for observer in observers:
            observer.tapped(run, name)

    return record
