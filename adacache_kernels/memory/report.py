"""The report on the memory of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .arena import ArenaStats


@dataclass(frozen=True)
class MemoryReport:
    """The memory that a cache uses.

    Args:
        planned: bytes of the plan's slots on the device.
        in_use: bytes of the tensors that were allocated for them.
        slots: number of slots, including those in host memory.
        on_host: bytes in host memory while the model runs on a device.
        storage: storage of the residuals, such as "full precision" or "int8".
        refused: for each storage that was tried before and did not fit, the reason.
        arena: statistics of the arena; None before there is a plan.
    """

    planned: int = 0
    in_use: int = 0
    slots: int = 0
    on_host: int = 0
    storage: str = ""
    refused: tuple[str, ...] = ()
    arena: ArenaStats | None = None


def joined_reports(reports: Sequence[MemoryReport]) -> MemoryReport:
    """Return one report on several caches that share an arena."""
    return MemoryReport(
        planned=sum(report.planned for report in reports),
        in_use=sum(report.in_use for report in reports),
        slots=sum(report.slots for report in reports),
        on_host=sum(report.on_host for report in reports),
        storage=", ".join(dict.fromkeys(report.storage for report in reports)),
        refused=tuple(text for report in reports for text in report.refused),
        arena=next((report.arena for report in reports if report.arena is not None), None),
    )
