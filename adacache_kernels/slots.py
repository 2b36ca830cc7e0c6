"""Memory of the cache: one tensor per slot, made at its first use, kept while its shape holds."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor


class Slots:
    """Tensors by key. Contents are undefined until somebody writes them."""

    def __init__(self) -> None:
        self._slots: dict[Hashable, Tensor] = {}
        self._switches: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def like(self, key: Hashable, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The contiguous slot `key` of `x`'s shape and device; made anew if it had another one."""
        dtype = dtype or x.dtype
        slot = self._slots.get(key)
        if slot is None or (slot.shape, slot.dtype, slot.device) != (x.shape, dtype, x.device):
            # Outside of inference mode: a slot made inside could not be written outside later.
            with torch.inference_mode(False):
                slot = torch.empty(x.shape, dtype=dtype, device=x.device)
            self._slots[key] = slot
        return slot

    def switched_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Coefficient 1 and a flag that is set, for a conditional add that the host decided on."""
        if device not in self._switches:
            with torch.inference_mode(False):
                one = torch.ones(1, dtype=torch.float32, device=device)
                self._switches[device] = (one, one.to(torch.int32))
        return self._switches[device]

    def clear(self) -> None:
        """Give all memory back."""
        self._slots.clear()
        self._switches.clear()

    @property
    def nbytes(self) -> int:
        """Bytes that the slots hold now."""
        return sum(slot.nbytes for slot in self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)
