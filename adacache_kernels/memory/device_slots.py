"""Residuals on the model's device: the distance update writes them, the conditional add reads them.

A stream is a hidden tensor in the layout of its block list, such as [B, F*S, C] or [B*F, S, C]. A
view function turns it into [B, F, S, C] without a copy.
"""

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
"""A function from a stream to its view [B, F, S, C]."""


@dataclass(frozen=True)
class ResidualWrite:
    """A residual to store, and the stored residuals to compare it with.

    Args:
        x_out: stream after the blocks, as a stream or as [B, F, S, C].
        x_in: stream before the blocks, in the shape of `x_out`. None: `x_out` is the residual.
        view: from a stream to [B, F, S, C].
        slot_holds: content of the slot so far. "nothing": none that counts; "previous": the oldest
            residual of the comparison. See `ops.distance_update`.
        previous: keys of the other residuals of the comparison.
        coefficients: one for each residual of `previous`, and then one for the slot's content if
            `slot_holds` is "previous". The comparison is with their weighted sum.
        strides: frame strides of the motion sums.
        metric: metric of the distance.
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
        """Return the number of residuals in the comparison."""
        return len(self.previous) + (self.slot_holds == "previous")


class Slots(Protocol):
    """The storage of residuals. `memory.plan` makes the keys."""

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        """Store a residual; return the sums of `ops.distance_update` if it is compared."""

    def add(
        self, out: Tensor, x: Tensor, keys: Sequence[Key], weights: Sequence[float], view: View
    ) -> None:
        """Write `x` plus the sum of weights[i] * residual_i to `out`.

        Args:
            out: a stream, or [B, F, S, C]; may be `x` itself.
            x: a tensor of that shape and dtype.
            keys: keys of the residuals.
            weights: one for each residual.
            view: from a stream to [B, F, S, C].
        """

    def read(self, key: Key, view: View) -> Tensor:
        """Return a copy of a residual: [B, F, S, C], floating point."""

    def prefetch(self, keys: Sequence[Key]) -> None:
        """Prepare the next call, which is an `add` of these residuals."""


@dataclass(frozen=True)
class DeviceSlots:
    """Slots on the model's device.

    Args:
        tensors: the slots by key, each in the shape of its stream.
        constants: coefficients and the flag on the device.
    """

    tensors: Mapping[Key, Tensor]
    constants: DeviceConstants = field(default_factory=DeviceConstants)

    def update(self, key: Key, update: ResidualWrite) -> Tensor | None:
        """Store a residual; return the sums of `ops.distance_update` if it is compared."""
        view, scale = update.view, self._scale(key, update.view)
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
            self.constants.coefficients(device, update.coefficients) if update.terms else None,
            update.strides,
            update.metric,
            slot_holds=update.slot_holds,
            scale=scale,
            previous_scales=[self._scale(previous, view) for previous in update.previous],
        )

    def add(
        self, out: Tensor, x: Tensor, keys: Sequence[Key], weights: Sequence[float], view: View
    ) -> None:
        """Write `x`, a stream or [B, F, S, C], plus the sum of weights[i] * residual_i to `out`."""
        tensors = [self.tensors[key] for key in keys]
        scales = [self.tensors.get(scale_key(key)) for key in keys]
        if x.dim() == 4:  # Streams stay as they are: their rows are longer.
            tensors = [view(tensor) for tensor in tensors]
            scales = [None if scale is None else view(scale) for scale in scales]
        coefficients = self.constants.coefficients(x.device, weights)
        flag = self.constants.flag(x.device)
        ops.conditional_add(x, tensors, coefficients, flag, scales, out)

    def read(self, key: Key, view: View) -> Tensor:
        """Return a copy of a residual: [B, F, S, C], floating point."""
        scale = self._scale(key, view)
        residual = view(self.tensors[key])
        return residual.clone() if scale is None else residual.float() * scale

    def prefetch(self, keys: Sequence[Key]) -> None:
        """Do nothing: the residuals are on the device."""

    def _scale(self, key: Key, view: View) -> Tensor | None:
        """Return the scales [B, F, S, 1] of a slot of eight bits."""
        scale = self.tensors.get(scale_key(key))
        return None if scale is None else view(scale)
