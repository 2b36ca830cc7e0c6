"""Look for writes into hidden streams, which would make the stored residuals wrong.

A residual is x_out - x_in of a whole list. It is right only if nothing writes into x_in while the
blocks run, and if each block gets exactly what the block before it returned.

Version counters show such writes in every recorded call, at once. Inference tensors have none, and
writes from outside of PyTorch do not change them. So the first recorded call of a guidance branch
compares fingerprints of the values as well. They are compared on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...models.block_calls import versions
from ...models.fingerprint import Fingerprint, fingerprint
from .host_flags import HostFlags


@dataclass(frozen=True)
class Write:
    """A place at which a stream changes although no block is allowed to change it.

    Args:
        kind: "input": what enters a block list, while its blocks run. "between": a stream, between
            two blocks. "after": what left the last block, perhaps still in the model's loop.
            "metric": the input of a metric block, or the output of one of its modules. "twice": the
            blocks ran again in the same call, with other streams.
        attribute: name of the `nn.ModuleList` in the model.
        index: index of the metric block, or of the block before the change; 0 for "input".
    """

    kind: Literal["input", "between", "after", "metric", "twice"]
    attribute: str
    index: int = 0

    @property
    def spoils_residuals(self) -> bool:
        """Return True if the stored residuals are wrong because of it."""
        return self.kind in ("input", "between", "twice")


@dataclass(frozen=True)
class Trace:
    """A tensor as it was at one moment.

    Args:
        tensor: the tensor.
        version: its version then, -1 if it has no version counter.
        values: the fingerprint of its values then, None if it was not made.
    """

    tensor: Tensor
    version: int
    values: Fingerprint | None


class WriteCheck:
    """The comparisons of streams in the recorded calls of one guidance branch."""

    def __init__(self) -> None:
        self.fingerprints = False
        """True if the present call compares values, and not only version counters."""
        self.found: set[Write] = set()
        """The writes that the host knows of."""
        self._flags: list[tuple[Write, Tensor]] = []
        self._posted: list[tuple[list[Write], HostFlags]] = []

    def begin(self, *, fingerprints: bool) -> None:
        """Begin a call.

        Args:
            fingerprints: whether values are compared, and not only version counters.
        """
        self.fingerprints = fingerprints
        self._flags = []

    @property
    def sees_between_blocks(self) -> bool:
        """Return True if there is anything to compare between two blocks."""
        return self.fingerprints or not torch.is_inference_mode_enabled()

    @property
    def is_open(self) -> bool:
        """Return True if results are on the device that the host has not read."""
        return bool(self._posted)

    def trace(self, x: Tensor | None) -> Trace | None:
        """Return the trace of a tensor, None for None."""
        if x is None:
            return None
        values = fingerprint(x) if self.fingerprints and _is_plain(x) else None
        return Trace(x, versions([x])[0], values)

    def compare(self, write: Write, before: Trace | None, x: Tensor | None = None) -> None:
        """Note the write if a tensor has changed.

        Args:
            write: the write that a change would show.
            before: the trace of the tensor; None: nothing is compared.
            x: the tensor that must have the values of the trace; None: the traced one.
        """
        if before is None:
            return
        if before.version != versions([before.tensor])[0]:
            self.found.add(write)
        elif before.values is not None:
            x = before.tensor if x is None else x
            now = fingerprint(x) if _is_plain(x) else before.values
            # A model may change shape, dtype or device between blocks and back again.
            if now.is_comparable(before.values):
                self._flags.append((write, now.differs(before.values)))

    def take(self) -> set[Write]:
        """Return the writes that the host knows of, and forget them."""
        found, self.found = self.found, set()
        return found

    def post(self) -> None:
        """Send the results of the comparisons to the host, when the call has ended."""
        for device in dict.fromkeys(flag.device for _, flag in self._flags):
            own = [(write, flag) for write, flag in self._flags if flag.device == device]
            if device.type != "meta":
                flags = HostFlags(torch.stack([flag for _, flag in own]))
                self._posted.append(([write for write, _ in own], flags))
        self._flags = []

    def read(self, *, wait: bool) -> float:
        """Add the results that have arrived to `found`.

        Args:
            wait: whether the host waits for those that have not arrived.

        Returns:
            The seconds for which the host waited.
        """
        waited, late = 0.0, []
        for writes, flags in self._posted:
            if not (wait or flags.have_arrived):
                late.append((writes, flags))
                continue
            values, seconds = flags.read()
            self.found |= {write for write, value in zip(writes, values, strict=True) if value}
            waited += seconds
        self._posted = late
        return waited


def _is_plain(x: Tensor) -> bool:
    """Return False for tensors whose memory cannot be read, such as sparse and sharded ones."""
    return x.layout == torch.strided and not is_traceable_wrapper_subclass(x)
