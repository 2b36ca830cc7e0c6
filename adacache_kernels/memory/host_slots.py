"""Stored residuals in host memory: they come to the device, and leave it, piece by piece.

Two sets of pieces on the device take turns, so that one is copied while the other is worked on. A
set has a buffer for each residual that an add, or the comparison of a new one, takes.
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
from .plan import STAGING, TURNS, Key, SlotSpec


@dataclass
class HostSlots:
    """Slots in host memory, flat, as `ChunkLayout` cuts them.

    Args:
        tensors: uint8, by key; pinned where the device can copy from it by itself.
        pieces: by key.
        staging: by turn, the buffers on the device, one for each residual that is taken at once.
        transfer: moves the pieces.
        constants: coefficients and flags on the device.
    """

    tensors: Mapping[Key, Tensor]
    pieces: Mapping[Key, ChunkLayout]
    staging: Sequence[Sequence[Tensor]]
    transfer: CopyStream
    constants: DeviceConstants = field(default_factory=DeviceConstants)

    @classmethod
    def of(
        cls,
        specs: Mapping[Key, SlotSpec],
        tensors: Mapping[Key, Tensor],
        transfer: CopyStream,
        constants: DeviceConstants,
    ) -> HostSlots:
        """From all slots of a plan."""
        pieces = {key: spec.pieces for key, spec in specs.items() if spec.pieces is not None}
        # Branches may differ in shape; the largest buffers take the pieces of all.
        buffers = [tensors[key] for key in specs if key[0] == STAGING]
        largest = max(buffer.nbytes for buffer in buffers)
        buffers = [buffer for buffer in buffers if buffer.nbytes == largest]
        terms = len(buffers) // TURNS
        staging = [buffers[turn * terms : (turn + 1) * terms] for turn in range(TURNS)]
        return cls({key: tensors[key] for key in pieces}, pieces, staging, transfer, constants)

    def __post_init__(self) -> None:
        # What a turn's buffers were last read or written by, work of the model or copies.
        self._released: list[Any] = [self.transfer.after_work() for _ in range(TURNS)]
        self._prefetched: tuple[Key, ...] = ()
        self._ready: list[Any] = [None] * TURNS

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        pieces = self.pieces[key]
        x_out = update.view(update.x_out)
        x_in = None if update.x_in is None else update.view(update.x_in)
        previous = [*update.previous, *([key] if update.slot_holds == "previous" else [])]
        # The slot's own buffer is the last one that is fetched, or a free one after those.
        place = len(update.previous)
        sums = []
        self._fetch(previous, 0)
        for index in range(pieces.count):
            if index + 1 < pieces.count:
                self._fetch(previous, index + 1)
            buffers = self._arrived(index)
            views = [pieces.views(buffer, index) for buffer in buffers[: place + 1]]
            slot, scale = views[place]
            sums.append(
                ops.distance_update(
                    slot,
                    pieces.cut(x_out, index),
                    None if x_in is None else pieces.cut(x_in, index),
                    [values for values, _ in views[:place]],
                    self._coefficients(update) if update.terms else None,
                    update.strides,
                    update.metric,
                    slot_holds=update.slot_holds,
                    scale=scale,
                    previous_scales=[scales for _, scales in views[:place]],
                )
            )
            self._send(key, buffers[place], index)
        return torch.cat(sums, dim=1)

    def add(
        self, x: Tensor, keys: Sequence[Key], coefficients: Sequence[float], view: View
    ) -> None:
        pieces = self.pieces[keys[0]]
        if x.dim() != 4:
            x = view(x)
        given = self.constants.floats(x.device, coefficients)
        self.prefetch(keys)
        self._prefetched = ()
        for index in range(pieces.count):
            if index + 1 < pieces.count:
                self._fetch(keys, index + 1)
            buffers = self._arrived(index)
            views = [pieces.views(buffer, index) for buffer in buffers[: len(keys)]]
            ops.conditional_add(
                pieces.cut(x, index),
                [values for values, _ in views],
                given,
                self.constants.true(x.device),
                [scale for _, scale in views],
            )
            self._released[index % TURNS] = self.transfer.after_work()

    def read(self, key: Key, view: View) -> Tensor:
        pieces = self.pieces[key]
        parts = []
        for index in range(pieces.count):
            self._fetch([key], index)
            values, scale = pieces.views(self._arrived(index)[0], index)
            parts.append(values.clone() if scale is None else values.float() * scale)
            self._released[index % TURNS] = self.transfer.after_work()
        return torch.cat(parts, dim=2)

    def prefetch(self, keys: Sequence[Key]) -> None:
        if self._prefetched == tuple(keys):
            return
        self._fetch(keys, 0)
        self._prefetched = tuple(keys)

    def _fetch(self, keys: Sequence[Key], index: int) -> None:
        """Copy a piece of each to the device, when its turn's buffers are free."""
        turn = index % TURNS
        self._prefetched = ()
        self.transfer.copies_wait(self._released[turn])
        for key, buffer in zip(keys, self.staging[turn], strict=False):
            start, end = self.pieces[key].extent(index)
            self.transfer.copy(buffer[: end - start], self.tensors[key][start:end])
        # Also where nothing was copied: what was sent from these buffers before must have left.
        self._ready[turn] = self.transfer.after_copies()

    def _arrived(self, index: int) -> Sequence[Tensor]:
        turn = index % TURNS
        self.transfer.work_waits(self._ready[turn])
        return self.staging[turn]

    def _send(self, key: Key, buffer: Tensor, index: int) -> None:
        """Copy a piece that was just made to the host."""
        start, end = self.pieces[key].extent(index)
        self.transfer.copies_wait(self.transfer.after_work())
        self.transfer.copy(self.tensors[key][start:end], buffer[: end - start])
        self._released[index % TURNS] = self.transfer.after_copies()

    def _coefficients(self, update: ResidualWrite) -> Tensor:
        return self.constants.floats(update.x_out.device, update.coefficients)
