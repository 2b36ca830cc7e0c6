"""What a generation under another method did, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..schedule import Decision


@dataclass
class Counters:
    """Counts of one generation.

    Args:
        units: by step, how many blocks or modules have run, and how many were called.
        decisions: what was measured, by step.
        recomputed: per branch, steps in which something was to be reused that was not there.
        waits: seconds of each time the host read a number of the device.
        peak_bytes: most that was held at the end of any forward.
        peak_tensors: the most tensors.
    """

    num_steps: int = 0
    units: dict[int, list[int]] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    recomputed: dict[str, list[int]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    peak_tensors: int = 0

    def count(self, step: int, *, computed: bool) -> None:
        """One block or module was called in `step`, and ran or was reused."""
        counts = self.units.setdefault(step, [0, 0])
        counts[0] += computed
        counts[1] += 1

    def missed(self, branch: str, step: int) -> None:
        """Something that was to be reused had to run."""
        steps = self.recomputed.setdefault(branch, [])
        if step not in steps:
            steps.append(step)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """What is held now; views of one tensor count once."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        self.peak_bytes = max(self.peak_bytes, sum(storages.values()))
        self.peak_tensors = max(self.peak_tensors, len(storages))

    @property
    def computed_steps(self) -> list[int]:
        """Steps in which everything ran."""
        return sorted(step for step, (ran, called) in self.units.items() if ran == called)

    @property
    def reused_steps(self) -> list[int]:
        """Steps in which anything was reused."""
        return sorted(step for step, (ran, called) in self.units.items() if ran < called)

    @property
    def totals(self) -> tuple[int, int]:
        """How many blocks or modules have run, and how many were called."""
        rows = self.units.values()
        return sum(row[0] for row in rows), sum(row[1] for row in rows)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a module's output."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
