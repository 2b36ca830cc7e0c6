"""Small constants on the device, written once: a reused step allocates nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROWS, COLUMNS = 1024, 4
"""Rows of a table: more than a generation has different forecasts; most coefficients of one."""


class DeviceConstants:
    """Rows of coefficients, and a flag that is set, for each device: 16 KiB."""

    def __init__(self) -> None:
        self._tables: dict[torch.device, _Table] = {}

    def floats(self, device: torch.device, values: Sequence[float]) -> Tensor:
        """`values` in float32 on the device."""
        table = self._table(device)
        if table.is_full:
            del self._tables[device]
            table = self._table(device)
        return table.row(tuple(values))

    def true(self, device: torch.device) -> Tensor:
        """int32 [1]: 1."""
        return self._table(device).flag

    def clear(self) -> None:
        """Give the memory back."""
        self._tables.clear()

    def _table(self, device: torch.device) -> _Table:
        if device not in self._tables:
            # Outside of inference mode: a tensor made inside could not be written outside later.
            with torch.inference_mode(False):
                self._tables[device] = _Table(device)
        return self._tables[device]


class _Table:
    def __init__(self, device: torch.device) -> None:
        self._on_host = torch.zeros(ROWS, COLUMNS, device="cpu", pin_memory=device.type == "cuda")
        # Not the host's rows copied over: the host would wait for that, even from pinned memory.
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
            # No row of the host is written again, so that the copy may take its time.
            row.copy_(host, non_blocking=True)
        return row[: len(values)]
