"""Count what a generation under a baseline did, and the memory it used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..schedule import Decision


@dataclass
class Counters:
    """The counters of one generation.

    Args:
        num_steps: steps of the generation, 0 if not known yet.
        units: by step, how many blocks or modules have run, and how many were called.
        decisions: the decisions, by step.
        recomputed: by branch, the steps in which nothing was stored that could be reused.
        waits: seconds of each wait of the host for a number of the device.
        peak_bytes: the most bytes stored at the end of a forward call.
        peak_tensors: the most tensors stored at the end of a forward call.
    """

    num_steps: int = 0
    units: dict[int, list[int]] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    recomputed: dict[str, list[int]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    peak_tensors: int = 0

    def count(self, step: int, *, computed: bool) -> None:
        """Count one block or module that was called in `step`, and ran if `computed`."""
        counts = self.units.setdefault(step, [0, 0])
        counts[0] += computed
        counts[1] += 1

    def missed(self, branch: str, step: int) -> None:
        """Note that in `step` something had to run that the policy wanted to reuse."""
        steps = self.recomputed.setdefault(branch, [])
        if step not in steps:
            steps.append(step)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count the tensors that are stored now; views of one tensor count once."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        self.peak_bytes = max(self.peak_bytes, sum(storages.values()))
        self.peak_tensors = max(self.peak_tensors, len(storages))

    @property
    def computed_steps(self) -> list[int]:
        """Return the steps in which everything ran."""
        return sorted(step for step, (ran, called) in self.units.items() if ran == called)

    @property
    def reused_steps(self) -> list[int]:
        """Return the steps in which something was reused."""
        return sorted(step for step, (ran, called) in self.units.items() if ran < called)

    @property
    def totals(self) -> tuple[int, int]:
        """Return how many blocks or modules have run, and how many were called."""
        rows = self.units.values()
        return sum(row[0] for row in rows), sum(row[1] for row in rows)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a module's output: a tensor, or nested lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
