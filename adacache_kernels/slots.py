"""Memory of the cache: one tensor per slot, made at its first use, kept while its shape holds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from . import ops


class Slots:
    """Tensors by key. Contents are undefined until somebody writes them."""

    def __init__(self) -> None:
        self._slots: dict[Hashable, Tensor] = {}
        self._constants: dict[tuple[torch.device, torch.dtype, tuple[float, ...]], Tensor] = {}

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

    def add(self, x: Tensor, residuals: Sequence[Tensor], coefficients: Sequence[float]) -> None:
        """x = x + sum_i coefficients[i] * residuals[i], in place: decided on the host."""
        always = self._constant(x.device, torch.int32, (1,))
        ops.conditional_add(x, residuals, self.coefficients(x.device, coefficients), always)

    def coefficients(self, device: torch.device, values: Sequence[float]) -> Tensor:
        """`values` in float32 on the device."""
        return self._constant(device, torch.float32, tuple(values))

    def _constant(
        self, device: torch.device, dtype: torch.dtype, values: tuple[float, ...]
    ) -> Tensor:
        """`values` on the device; kept, for a copy from the host each time would cost more."""
        key = (device, dtype, values)
        if key not in self._constants:
            with torch.inference_mode(False):
                self._constants[key] = torch.tensor(values, dtype=dtype, device=device)
        return self._constants[key]

    def clear(self) -> None:
        """Give all memory back."""
        self._slots.clear()
        self._constants.clear()

    @property
    def nbytes(self) -> int:
        """Bytes that the slots hold now."""
        return sum(slot.nbytes for slot in self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)
