"""Recognise a tensor, or a view of it, without reading its values from a device."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


def storage_of(x: Tensor) -> StorageWeakRef:
    """Return a weak reference to the storage of a tensor; equal for all views of it.

    While the reference lives, no other storage gets the same address.
    """
    return StorageWeakRef(x.untyped_storage())


def version_of(x: Tensor) -> int:
    """Return a number that changes with every write; -1 if the tensor does not count its writes."""
    return -1 if x.is_inference() else x._version


class TensorIdentity:
    """The identity of a tensor: its storage, its place in it, and the count of its writes.

    A tensor on the CPU is also recognised by its values, because to read them is no wait. An
    inference tensor on the CPU does not count its writes, so a copy of it is compared.

    Args:
        x: the tensor.
    """

    def __init__(self, x: Tensor) -> None:
        self._tensor = weakref.ref(x)
        self._storage = storage_of(x)
        self._version = version_of(x)
        self._place = _place_of(x)
        self._values: Tensor | None = None
        if x.device.type == "cpu":
            self._values = x.clone() if self._version < 0 else x.detach()

    def matches(self, value: object) -> bool:
        """Return True if `value` is this tensor, unchanged, or has the same values on the CPU."""
        if not isinstance(value, Tensor):
            return False
        if self._is_same_memory(value) and self._version == version_of(value):
            return self._version >= 0 or self._has_values_of(value)
        return self._has_values_of(value)

    def _is_same_memory(self, x: Tensor) -> bool:
        if self._tensor() is x:
            return True
        return _place_of(x) == self._place and storage_of(x) == self._storage

    def _has_values_of(self, x: Tensor) -> bool:
        values = self._values
        if values is None:
            # An inference tensor on a device: its identity is all that can be known.
            return self._version < 0 and self._is_same_memory(x)
        was_written = self._version >= 0 and values._version != self._version
        if was_written or x.device != values.device or x.dtype != values.dtype:
            return False
        return torch.equal(values, x)


def _place_of(x: Tensor) -> tuple[object, ...]:
    return x.storage_offset(), tuple(x.shape), x.stride(), x.dtype
