"""`SyncSpy`: record each operation that makes the host wait for the device.

These operations wait on a CUDA device (torch's own rules, `aten/src/ATen/native/cuda/Copy.cu`):

- a value that Python reads: `item`, `tolist`, `if tensor`, `float(tensor)`, a tensor as an index;
- a result whose shape depends on values: `nonzero`, a mask as an index, `unique`;
- an index that lies on the host;
- a copy to the host, and a copy to the device that is not both from pinned memory and non-blocking.

A copy to the host that does not wait is recorded as well, because its values cannot be used without
a wait. One kind of copy is not recorded: a non-blocking `copy_` into pinned memory. Its author has
to record an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .waits import Wait, listen, note, stop_listening

aten = torch.ops.aten
READS_VALUE = {
    aten._local_scalar_dense.default: "a value read (item)",
    aten.is_nonzero.default: "a value read (is_nonzero)",
    aten.equal.default: "equal",
    aten.allclose.default: "allclose",
}
SHAPE_BY_VALUE = {
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique_consecutive",
    aten.unique_dim.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.bincount.default: "bincount",
}
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
WAITS = READS_VALUE | SHAPE_BY_VALUE
Answer = Callable[[Tensor], Any]


class SyncSpy(TorchDispatchMode):
    """A mode, used inside `fake_cuda`, that records waits while it is entered.

    Args:
        answer: maps a tensor, which has no values, to the value that is read from it. `nonzero`
            then finds one element. None: reading raises, as with all fake tensors.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self._answer = answer
        self._pinned: list[StorageWeakRef] = []

    def __enter__(self) -> SyncSpy:
        listen(self.waits)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        stop_listening(self.waits)

    def __torch_dispatch__(
        self,
        op: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        what = self._wait(op, args, kwargs)
        if what is not None:
            note(what)
        if self._answer is not None:
            if op is aten._local_scalar_dense.default:
                return self._answer(args[0])
            if op is aten.nonzero.default:
                return args[0].new_zeros((1, args[0].dim()), dtype=torch.int64)
        result = op(*args, **kwargs)
        if kwargs.get("pin_memory"):
            self._pinned.append(StorageWeakRef(result.untyped_storage()))
        return result

    def _wait(self, op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the reason why this operation makes the host wait; None if it does not."""
        if op in WAITS:
            return WAITS[op] if _on_cuda(args[0]) else None
        if op in INDEXES:
            return _index(args[0], args[1], args[2] if len(args) > 2 else None)
        if op is aten._to_copy.default:
            device = kwargs.get("device") or args[0].device
            return self._copy(args[0], device, non_blocking=bool(kwargs.get("non_blocking")))
        if op is aten.copy_.default:
            target, source = args[0], args[1]
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            if non_blocking and self._is_pinned(target):
                return None
            return self._copy(source, target.device, non_blocking=bool(non_blocking))
        return None

    def _copy(self, source: Tensor, device: torch.device, *, non_blocking: bool) -> str | None:
        if _on_cuda(source) and device.type == "cpu":
            return "a copy to the host"
        if source.device.type != "cpu" or device.type != "cuda":
            return None
        if not self._is_pinned(source):
            return "a copy to the device from memory that is not pinned"
        return None if non_blocking else "a blocking copy to the device"

    def _is_pinned(self, tensor: Tensor) -> bool:
        storage = StorageWeakRef(tensor.untyped_storage())
        return tensor.device.type == "cpu" and storage in self._pinned


def _on_cuda(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _index(x: Tensor, indices: Sequence[Tensor | None], value: Tensor | None) -> str | None:
    if not _on_cuda(x):
        return None
    given = [index for index in indices if index is not None]
    if any(index.device.type == "cpu" for index in given):
        return "an index from the host"
    # If the value is one number on the host, torch fills with it where the mask is set.
    if value is not None and value.numel() == 1 and value.device.type == "cpu":
        return None
    has_mask = any(index.dtype in (torch.bool, torch.uint8) for index in given)
    return "a mask as an index" if has_mask else None
