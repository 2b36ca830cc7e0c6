"""Small constants on the device, written once: an add allocates nothing for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a table: a generation has fewer different forecasts."""
COLUMNS = 4
"""Columns of a table: the most coefficients of one forecast."""


class DeviceConstants:
    """Rows of coefficients, and the flag 1, for each device: 16 KiB."""

    def __init__(self) -> None:
        self._tables: dict[torch.device, _Table] = {}

    def coefficients(self, device: torch.device, values: Sequence[float]) -> Tensor:
        """Return `values` on the device: float32 [n], with n at most `COLUMNS`."""
        if self._table(device).is_full:
            del self._tables[device]
        return self._table(device).row(tuple(values))

    def flag(self, device: torch.device) -> Tensor:
        """Return the flag 1 on the device: int32 [1], for `ops.conditional_add`."""
        return self._table(device).flag

    def clear(self) -> None:
        """Free the memory."""
        self._tables.clear()

    def _table(self, device: torch.device) -> _Table:
        if device not in self._tables:
            # Outside of inference mode: a tensor made inside could not be written outside later.
            with torch.inference_mode(False):
                self._tables[device] = _Table(device)
        return self._tables[device]


class _Table:
    """Rows of float32 [ROWS, COLUMNS] on the host and on one device."""

    def __init__(self, device: torch.device) -> None:
        self._on_host = torch.zeros(ROWS, COLUMNS, device="cpu", pin_memory=device.type == "cuda")
        # Not a copy of the host's table: the host would wait for it, even from pinned memory.
        on_cpu = device.type == "cpu"
        self._on_device = self._on_host if on_cpu else torch.zeros(ROWS, COLUMNS, device=device)
        self._rows: dict[tuple[float, ...], Tensor] = {}
        self.flag = torch.ones(1, dtype=torch.int32, device=device)

    @property
    def is_full(self) -> bool:
        return len(self._rows) == ROWS

    def row(self, values: tuple[float, ...]) -> Tensor:
        if values not in self._rows:
            self._rows[values] = self._write(len(self._rows), values)
        return self._rows[values]

    def _write(self, index: int, values: tuple[float, ...]) -> Tensor:
        host, row = self._on_host[index], self._on_device[index]
        for column, value in enumerate(values):
            host[column].fill_(value)
        if host.device != row.device:
            # The host never writes this row again, so the copy may be late.
            row.copy_(host, non_blocking=True)
        return row[: len(values)]
