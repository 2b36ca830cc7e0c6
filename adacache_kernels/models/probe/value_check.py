"""Compare a tensor with its value of an earlier time, without a copy of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..block_calls import versions
from ..fingerprint import fingerprint


class Value:
    """The value of a tensor at one time.

    It is recognised by its fingerprint. The memory of some kinds of tensors cannot be read, such as
    that of subclasses. Their version counter has to do.

    Args:
        x: the tensor; it is not held.
    """

    def __init__(self, x: Tensor) -> None:
        is_plain = type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided
        self._fingerprint = fingerprint(x) if is_plain else None
        self._version = versions([x])

    def differs_from(self, x: Tensor) -> Tensor | bool:
        """Return True, or a bool `[]` on the device, if the tensor has another value now."""
        now = Value(x)
        if self._fingerprint is None or now._fingerprint is None:
            return self._version != now._version
        if not self._fingerprint.is_comparable(now._fingerprint):
            return True
        return self._fingerprint.differs(now._fingerprint)
