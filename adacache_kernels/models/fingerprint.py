"""Fingerprints of tensors: they show a write that changes no version counter.

Tensors of `torch.inference_mode` have no version counter, and writes from outside of PyTorch (a
Triton kernel, a NumPy view) do not change it. A fingerprint is made from the values themselves.
It stays on their device, so nobody waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WORD = 8
"""Bytes of the words that are added up."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}
"""By bytes of an element, the integer type as which its bits are read."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A checksum of a tensor's bits.

    Args:
        shape: the shape of the tensor.
        dtype: its dtype.
        sums: int64 `[rows + words of a row]`, on the tensor's device.
    """

    shape: torch.Size
    dtype: torch.dtype
    sums: Tensor

    def is_comparable(self, other: Fingerprint) -> bool:
        """Return True if both tensors have one shape, dtype and device."""
        kinds = [(f.shape, f.dtype, f.sums.device) for f in (self, other)]
        return kinds[0] == kinds[1]

    def differs(self, other: Fingerprint) -> Tensor:
        """Compare two fingerprints, without a wait of the host.

        Returns:
            bool `[]` on the device: True if the tensors differ.

        Raises:
            ValueError: the tensors have not one shape, dtype and device.
        """
        if not self.is_comparable(other):
            of = [f"{tuple(f.shape)} {f.dtype} on {f.sums.device}" for f in (self, other)]
            raise ValueError(f"expected tensors of one shape, dtype and device, got {of}")
        return torch.ne(self.sums, other.sums).any()


def fingerprint(x: Tensor) -> Fingerprint:
    """Return the fingerprint of a tensor: the sums of its bits along each row and each column.

    The bits of a row (the last dimension) are read as integers of 8 bytes. Their sums wrap around,
    so the order of additions does not matter, and NaN is a value like others. Equal values have
    equal fingerprints, whatever their strides.

    No copy of the tensor is made, with two exceptions that streams seldom have: rows that are not
    contiguous or not aligned to 8 bytes are copied, and rows of another length than a multiple of 8
    bytes are converted to int64.

    Args:
        x: of any shape, dtype and strides; empty, meta and inference tensors too.
    """
    words = _words(x.detach())
    rows = words.sum(dim=-1, dtype=torch.int64).flatten()
    columns = words.sum(dim=tuple(range(words.ndim - 1)), dtype=torch.int64)
    return Fingerprint(x.shape, x.dtype, torch.cat([rows, columns]))


def _words(x: Tensor) -> Tensor:
    """Return a view of the bits as integers, of two dimensions or more."""
    while x.ndim < 2:
        x = x.unsqueeze(0)
    size = x.element_size()
    per_word = max(1, WORD // size)
    if x.numel() == 0 or x.shape[-1] * size % WORD:
        return x.view(INTEGERS[size])
    starts = (x.storage_offset(), *x.stride()[:-1])
    is_aligned = all(start % per_word == 0 for start in starts)
    if x.stride(-1) != 1 or not is_aligned:
        x = x.clone(memory_format=torch.contiguous_format)
    return x.view(torch.int64)
