"""Stored residuals on the model's device: written by the distance update, read by the add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from .. import ops
from ..options import Metric
from .device_constants import DeviceConstants
from .plan import Key, scale_key

View = Callable[[Tensor], Tensor]
"""From a stream to four dimensions: the video as [B, F, S, C]."""


@dataclass(frozen=True)
class ResidualWrite:
    """A residual that is to be stored.

    Args:
        x_out: after the blocks; a stream, or with the four dimensions that `view` gives it.
        x_in: before them; None where `x_out` is the residual.
        view: of both, and of the slot.
        slot_holds: "nothing" or "previous", as `ops.distance_update` has it.
        previous: keys of the residuals that it is compared with, without the slot itself.
        coefficients: of those, and of the slot if it holds the oldest one.
        strides: frame strides of the motion sums.
        metric: of the distance.
    """

    x_out: Tensor
    x_in: Tensor | None
    view: View
    slot_holds: str = "nothing"
    previous: Sequence[Key] = ()
    coefficients: Sequence[float] = ()
    strides: Sequence[int] = ()
    metric: Metric = "l1"

    @property
    def terms(self) -> int:
        """How many residuals it is compared with."""
        return len(self.previous) + (self.slot_holds == "previous")


class Slots(Protocol):
    """Where residuals are stored; keys as in `cache_plan`."""

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        """Store a residual; sums as `ops.distance_update` returns them, if it is compared."""

    def add(
        self, x: Tensor, keys: Sequence[Key], coefficients: Sequence[float], view: View
    ) -> None:
        """x = x + sum_i coefficients[i] * residual_i, in place: decided on the host.

        `x` is a stream, or has the four dimensions that `view` gives the residuals.
        """

    def read(self, key: Key, view: View) -> Tensor:
        """A copy of a residual in four dimensions, in floating point."""

    def prefetch(self, keys: Sequence[Key]) -> None:
        """The next thing is `add` of these."""


@dataclass(frozen=True)
class DeviceSlots:
    """Slots on the model's device.

    Args:
        tensors: by key, in the shape of their stream.
        constants: coefficients and flags on the device.
    """

    tensors: Mapping[Key, Tensor]
    constants: DeviceConstants = field(default_factory=DeviceConstants)

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        view, scale = update.view, self.tensors.get(scale_key(key))
        if update.x_in is not None and update.terms == 0 and scale is None:
            slot = self.tensors[key] if update.x_out.dim() != 4 else view(self.tensors[key])
            ops.residual_update(slot, update.x_out, update.x_in)
            return None
        device = update.x_out.device
        return ops.distance_update(
            view(self.tensors[key]),
            view(update.x_out),
            None if update.x_in is None else view(update.x_in),
            [view(self.tensors[previous]) for previous in update.previous],
            self.constants.floats(device, update.coefficients) if update.terms else None,
            update.strides,
            update.metric,
            slot_holds=update.slot_holds,
            scale=None if scale is None else view(scale),
            previous_scales=[self._scale(previous, view) for previous in update.previous],
        )

    def add(
        self, x: Tensor, keys: Sequence[Key], coefficients: Sequence[float], view: View
    ) -> None:
        tensors = [self.tensors[key] for key in keys]
        scales = [self.tensors.get(scale_key(key)) for key in keys]
        if x.dim() == 4:  # As streams they have longer rows to walk along.
            tensors = [view(tensor) for tensor in tensors]
            scales = [None if scale is None else view(scale) for scale in scales]
        given = self.constants.floats(x.device, coefficients)
        ops.conditional_add(x, tensors, given, self.constants.true(x.device), scales)

    def read(self, key: Key, view: View) -> Tensor:
        scale = self._scale(key, view)
        residual = view(self.tensors[key])
        return residual.clone() if scale is None else residual.float() * scale

    def prefetch(self, keys: Sequence[Key]) -> None:
        """They are there."""

    def _scale(self, key: Key, view: View) -> Tensor | None:
        scale = self.tensors.get(scale_key(key))
        return None if scale is None else view(scale)
