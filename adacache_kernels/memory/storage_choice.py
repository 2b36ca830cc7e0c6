"""The choice of the storage of residuals when the preferred one exceeds the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..options import OverBudget
from .plan import Storage


@dataclass(frozen=True)
class StorageChoice:
    """The storages that the settings allow, in the order in which they are tried.

    Args:
        preferred: the storage to use if it fits.
        over_budget: the setting of the same name.
        max_bytes: the budget as the user gave it, for messages.
    """

    preferred: Storage
    over_budget: tuple[OverBudget, ...]
    max_bytes: int | float | str | None

    def storages(self, device: torch.device) -> Iterator[Storage]:
        """Return the storages to try on a device, the preferred one first."""
        yield self.preferred
        for alternative in self.over_budget:
            if alternative == "int8" or alternative == "fp8":
                yield replace(self.preferred, dtype=alternative)
            elif alternative == "host" and has_host_memory(device):
                yield replace(self.preferred, on_host=True)

    def nothing_fits(self, refused: Sequence[str], device: torch.device) -> str:
        """Return the message for a cache that fits in no storage.

        Args:
            refused: for each storage that was tried, the reason why it does not fit.
            device: device of the model.
        """
        reasons = list(refused)
        if "host" in self.over_budget and not has_host_memory(device):
            reasons.append("host memory: the model runs in it already")
        tried = "\n".join(reasons)
        return (
            f"the cache does not fit:\n{tried}\n"
            f"Raise max_cache_bytes (it is {self.max_bytes}), or name other storages with "
            "over_budget=, any of 'int8', 'fp8', 'host' in the order to try them (it is "
            f"{self.over_budget}). forecast= and correct= need slots too"
        )


def has_host_memory(device: torch.device) -> bool:
    """Return True if the host's memory is separate from the device's."""
    return device.type != "cpu"
