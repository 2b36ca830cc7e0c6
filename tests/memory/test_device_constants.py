"""Coefficients and the flag on the device."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from adacache_kernels.memory.device_constants import ROWS, DeviceConstants

CPU = torch.device("cpu")


def test_a_forecast_of_order_two_and_its_correction_have_a_row() -> None:
    values = (1.0, -2.0, 0.5, 4.0)
    row = DeviceConstants().coefficients(CPU, values)
    assert row.dtype == torch.float32 and row.tolist() == list(values)


def test_a_full_table_is_replaced_and_its_rows_stay() -> None:
    constants = DeviceConstants()
    first = constants.coefficients(CPU, (0.5,))
    for index in range(ROWS):
        constants.coefficients(CPU, (float(index),))
    assert constants.coefficients(CPU, (0.5,)).data_ptr() != first.data_ptr()
    assert first.tolist() == [0.5]


def test_clear_frees_the_memory() -> None:
    constants = DeviceConstants()
    storage = StorageWeakRef(constants.coefficients(CPU, (1.0,)).untyped_storage())
    assert not storage.expired()
    constants.clear()
    assert storage.expired()
