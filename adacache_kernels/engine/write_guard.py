"""Act on writes into the hidden streams of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableSequence

from torch import nn

from ..models import Adapter
from ..models.cut_lists import cut_lists
from .reports.user_warnings import UserWarnings
from .residuals.block_stand_ins import Observer
from .residuals.write_check import Write, WriteCheck
from .residuals.write_observers import MetricWatch

DROPPED = "so the residuals that were stored until now are dropped"


class WriteGuard:
    """The writes that were found in one model, and the ways to cache it rightly all the same.

    Args:
        model: the transformer.
        adapter: the description of the model.
        warnings: the user warnings of the model.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, warnings: UserWarnings) -> None:
        self._model = model
        self._user_warnings = warnings
        self._metric_blocks: set[tuple[str, int]] = set()
        self.adapter = adapter
        """The description with the lists cut where the model changes a stream."""
        self._kept: set[str] = set()
        self.whole: set[str] = set()
        """The lists of which a reused step needs an element for every block."""
        self.reason: str | None = None
        """The reason why every step is computed, None if there is none."""

    def watch_metric_blocks(
        self,
        observers: Mapping[str, Mapping[int, MutableSequence[Observer]]],
        check: WriteCheck,
        *,
        keeps_all: bool = False,
    ) -> None:
        """Add an observer of writes to each metric block.

        Args:
            observers: of the metric blocks, by list and index.
            check: receives the comparisons.
            keeps_all: whether each measurement gets copies, and not only after a write was found.
        """
        for attribute, by_index in observers.items():
            for index, of_block in by_index.items():
                keeps = keeps_all or (attribute, index) in self._metric_blocks
                of_block.insert(0, MetricWatch(check, attribute, index, keeps=keeps))

    def kept_lists(self, *, keeps_all: bool) -> Collection[str]:
        """Return the lists of whose input a copy is held.

        Args:
            keeps_all: whether that is so for each list, and not only after a write was found.
        """
        return {blocks.attribute for blocks in self.adapter.lists} if keeps_all else self._kept

    def learn(self, writes: Iterable[Write]) -> None:
        """Decide what follows from new writes: copies, other lists, or no reuse at all."""
        places = set()
        for write in sorted(writes, key=lambda write: (write.attribute, write.index)):
            if write.kind == "metric":
                self._metric_blocks.add((write.attribute, write.index))
            elif write.kind == "after":
                self.whole.add(write.attribute)
            elif write.kind == "between":
                places.add((write.attribute, write.index))
            elif write.kind == "twice":
                self.reason = (
                    f"the blocks of {write.attribute} ran more than once in one forward call, and "
                    "no single residual belongs to it, so every step is computed"
                )
            else:
                self._kept.add(write.attribute)
                self._user_warnings.warn("in place", _in_place(write.attribute))
        if places:
            self._cut(places)

    def _cut(self, places: set[tuple[str, int]]) -> None:
        cut = cut_lists(self.adapter, self._model, places)
        attribute, index = min(places)
        change = f"the model changes a stream after block {index} of {attribute}"
        if cut is None:
            self.reason = (
                f"{change}, and these blocks alternate with those of another list, so every step "
                "is computed"
            )
            return
        self.adapter = cut
        text = f"{change}, {DROPPED}; from now on the blocks before and after it have residuals"
        self._user_warnings.warn("changed between blocks", f"{text} of their own")


def _in_place(attribute: str) -> str:
    return (
        f"a block of {attribute} wrote into the input of the first block, {DROPPED}; from now on a "
        "copy of that input is held in steps that are stored"
    )
