"""Residuals in host memory, copied to the device and back one chunk at a time.

The device has two sets of staging buffers: one set is copied while the other is in use. A set has
one buffer for each residual that an add, or the comparison of a new residual, takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .chunk_layout import ChunkLayout
from .copy_stream import CopyStream
from .device_constants import DeviceConstants
from .device_slots import ResidualWrite, View
from .plan import STAGING, STAGING_SETS, Key, SlotSpec


@dataclass
class HostSlots:
    """Slots in host memory, in the chunks of a `ChunkLayout`.

    Args:
        tensors: the slots by key: uint8 [bytes], pinned if the device copies from pinned memory.
        chunks: the chunk layouts by key.
        staging: for each set, its buffers on the device: uint8 [bytes].
        copies: the queue that copies the chunks.
        constants: coefficients and the flag on the device.
    """

    tensors: Mapping[Key, Tensor]
    chunks: Mapping[Key, ChunkLayout]
    staging: Sequence[Sequence[Tensor]]
    copies: CopyStream
    constants: DeviceConstants = field(default_factory=DeviceConstants)

    @classmethod
    def of(
        cls,
        specs: Mapping[Key, SlotSpec],
        tensors: Mapping[Key, Tensor],
        copies: CopyStream,
        constants: DeviceConstants,
    ) -> HostSlots:
        """Make the slots of a plan from its specs and tensors."""
        chunks = {key: spec.chunks for key, spec in specs.items() if spec.chunks is not None}
        # Branches may differ in shape; the largest buffers fit the chunks of all.
        buffers = [tensors[key] for key in specs if key[0] == STAGING]
        largest = max(buffer.nbytes for buffer in buffers)
        buffers = [buffer for buffer in buffers if buffer.nbytes == largest]
        terms = len(buffers) // STAGING_SETS
        staging = [buffers[index * terms : (index + 1) * terms] for index in range(STAGING_SETS)]
        return cls({key: tensors[key] for key in chunks}, chunks, staging, copies, constants)

    def __post_init__(self) -> None:
        # For each set, the event after the last use of its buffers, by the model or by a copy.
        self._released: list[Any] = [self.copies.after_work() for _ in range(STAGING_SETS)]
        self._prefetched: tuple[Key, ...] = ()
        self._ready: list[Any] = [None] * STAGING_SETS

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        """Store a residual; return the sums of `ops.distance_update`."""
        chunks = self.chunks[key]
        x_out = update.view(update.x_out)
        x_in = None if update.x_in is None else update.view(update.x_in)
        # The slot's own buffer is the last one that is fetched, or a free one after those.
        fetched = [*update.previous, *([key] if update.slot_holds == "previous" else [])]
        own = len(update.previous)
        sums = []
        self._fetch(fetched, 0)
        for index in range(chunks.count):
            if index + 1 < chunks.count:
                self._fetch(fetched, index + 1)
            buffers = self._arrived(index)
            views = [chunks.views(buffer, index) for buffer in buffers[: own + 1]]
            slot, scale = views[own]
            sums.append(
                ops.distance_update(
                    slot,
                    chunks.cut(x_out, index),
                    None if x_in is None else chunks.cut(x_in, index),
                    [values for values, _ in views[:own]],
                    self._coefficients(update) if update.terms else None,
                    update.strides,
                    update.metric,
                    slot_holds=update.slot_holds,
                    scale=scale,
                    previous_scales=[scales for _, scales in views[:own]],
                )
            )
            self._send(key, buffers[own], index)
        return torch.cat(sums, dim=1)

    def add(
        self, out: Tensor, x: Tensor, keys: Sequence[Key], weights: Sequence[float], view: View
    ) -> None:
        """Write `x`, a stream or [B, F, S, C], plus the sum of weights[i] * residual_i to `out`."""
        chunks = self.chunks[keys[0]]
        if x.dim() != 4:
            out, x = view(out), view(x)
        coefficients = self.constants.coefficients(x.device, weights)
        self.prefetch(keys)
        self._prefetched = ()
        for index in range(chunks.count):
            if index + 1 < chunks.count:
                self._fetch(keys, index + 1)
            buffers = self._arrived(index)
            views = [chunks.views(buffer, index) for buffer in buffers[: len(keys)]]
            ops.conditional_add(
                chunks.cut(x, index),
                [values for values, _ in views],
                coefficients,
                self.constants.flag(x.device),
                [scale for _, scale in views],
                chunks.cut(out, index),
            )
            self._released[index % STAGING_SETS] = self.copies.after_work()

    def read(self, key: Key, view: View) -> Tensor:
        """Return a copy of a residual: [B, F, S, C], floating point."""
        chunks = self.chunks[key]
        parts = []
        for index in range(chunks.count):
            self._fetch([key], index)
            values, scale = chunks.views(self._arrived(index)[0], index)
            parts.append(values.clone() if scale is None else values.float() * scale)
            self._released[index % STAGING_SETS] = self.copies.after_work()
        return torch.cat(parts, dim=2)

    def prefetch(self, keys: Sequence[Key]) -> None:
        """Copy the first chunks of the residuals that the next `add` takes."""
        if self._prefetched == tuple(keys):
            return
        self._fetch(keys, 0)
        self._prefetched = tuple(keys)

    def _fetch(self, keys: Sequence[Key], index: int) -> None:
        """Queue copies of one chunk of each residual, after the last use of the buffers."""
        staging_set = index % STAGING_SETS
        self._prefetched = ()
        self.copies.copies_wait(self._released[staging_set])
        for key, buffer in zip(keys, self.staging[staging_set], strict=False):
            start, end = self.chunks[key].extent(index)
            self.copies.copy(buffer[: end - start], self.tensors[key][start:end])
        # Also without copies: an earlier `_send` from these buffers must be done.
        self._ready[staging_set] = self.copies.after_copies()

    def _arrived(self, index: int) -> Sequence[Tensor]:
        """Make the model wait for the chunks; return their buffers, uint8 [bytes] each."""
        staging_set = index % STAGING_SETS
        self.copies.work_waits(self._ready[staging_set])
        return self.staging[staging_set]

    def _send(self, key: Key, buffer: Tensor, index: int) -> None:
        """Queue the copy of a new chunk, uint8 [bytes], to the host."""
        start, end = self.chunks[key].extent(index)
        self.copies.copies_wait(self.copies.after_work())
        self.copies.copy(self.tensors[key][start:end], buffer[: end - start])
        self._released[index % STAGING_SETS] = self.copies.after_copies()

    def _coefficients(self, update: ResidualWrite) -> Tensor:
        return self.constants.coefficients(update.x_out.device, update.coefficients)
