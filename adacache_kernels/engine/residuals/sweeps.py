"""Sweeps: the runs of the blocks in one forward call of a model that runs them several times.

A model may run the parts of its batch one after the other. Each sweep has stand-ins and residuals
of its own. The first call of a block in a forward call belongs to the first sweep, and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ...models.block_calls import whole_list
from ...models.block_stand_in import StandIn

BlocksByIndex = dict[int, object]


class Sweeps:
    """The sweeps of the present forward call of one guidance branch.

    Args:
        model: the transformer.
        count: number of sweeps for which residuals are stored.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self._model = model
        self._count = count
        self._calls: Counter[tuple[str, int]] = Counter()

    def begin(self, by_sweep: Sequence[Mapping[str, BlocksByIndex]]) -> dict[str, BlocksByIndex]:
        """Begin a forward call and return its blocks, by list and index.

        Args:
            by_sweep: the blocks of each sweep, by list and index.
        """
        self._calls.clear()
        if len(by_sweep) == 1:
            return dict(by_sweep[0])
        return {
            name: {
                index: self._in_turn(name, index, [blocks[name][index] for blocks in by_sweep])
                for index in first
            }
            for name, first in by_sweep[0].items()
        }

    @property
    def difference(self) -> str | None:
        """Return a text if the number of sweeps was another one in the last call, else None."""
        for (name, _), calls in self._calls.items():
            if calls != self._count:
                return (
                    f"the number of sweeps over the blocks of {name} has changed from "
                    f"{self._count} to {calls}, so such calls are computed; if all calls are like "
                    "this from now on, unpatch the model and patch it again"
                )
        return None

    def _in_turn(self, name: str, index: int, blocks: Sequence[Any]) -> object:
        """Return an object that calls the block of each sweep in turn."""
        module = whole_list(self._model, name)[index]
        if all(block is module for block in blocks):
            return module
        place = name, index
        self._calls[place] = 0

        def handle(*args: Any, **kwargs: Any) -> Any:
            sweep = self._calls[place]
            self._calls[place] += 1
            # The output of a reused step with another number of sweeps is not used.
            block = blocks[sweep] if sweep < len(blocks) else module
            return block(*args, **kwargs)

        return StandIn(module, handle)
