"""The ops on the CPU: the compiled code of ``csrc/``, on as many threads as torch uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native
from . import reference
from .checks import METRICS, SLOT_HOLDS
from .decide_settings import DecideSettings, DecideStep
from .native_views import address, optional_view, takes, takes_stored, view


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: str,
    slot_holds: str,
    scale: Tensor | None = None,
    previous_scales: Sequence[Tensor | None] = (),
) -> Tensor:
    """Store the residual `[B, F, S, C]`; return its sums `[B, 1, 3 + 2 * strides]`."""
    scales = [other for other in (scale, *previous_scales) if other is not None]
    optional = [tensor for tensor in (x_in, coefficients, *scales) if tensor is not None]
    takes_slot = takes(slot) if scale is None else takes_stored(slot)
    if not (takes_slot and takes_stored(*previous) and takes(x_out, *optional)):
        options = (strides, metric, slot_holds, scale, previous_scales)
        return reference.distance_update(slot, x_out, x_in, previous, coefficients, *options)
    sums = torch.empty((slot.shape[0], 1, 3 + 2 * len(strides)), dtype=torch.float32)
    _native.module().distance_update(
        view(slot),
        view(x_out),
        optional_view(x_in),
        [view(tensor) for tensor in previous],
        address(coefficients),
        SLOT_HOLDS.index(slot_holds),
        strides,
        METRICS.index(metric),
        optional_view(scale),
        [optional_view(tensor) for tensor in previous_scales],
        sums.data_ptr(),
        torch.get_num_threads(),
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store `x_out - x_in` in a slot of any shape."""
    if not takes(slot, x_out, x_in):
        return reference.residual_update(slot, x_out, x_in)
    views = map(view, (slot, x_out, x_in))
    _native.module().residual_update(*views, torch.get_num_threads())


def conditional_add(
    out: Tensor,
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    """Write `x` plus the residuals to `out`, or `x` without the flag. All have any one shape."""
    given_scales = [scale for scale in scales if scale is not None]
    if not (takes(out, x, coefficients, *given_scales) and takes_stored(*residuals)):
        return reference.conditional_add(out, x, residuals, scales, coefficients, flag)
    _native.module().conditional_add(
        view(out),
        view(x),
        [view(residual) for residual in residuals],
        [optional_view(scale) for scale in scales],
        coefficients.data_ptr(),
        flag.data_ptr(),
        torch.get_num_threads(),
    )


def decide(
    state: Tensor, sums: Tensor, codebook: Tensor, settings: DecideSettings, values: DecideStep
) -> None:
    """Write the decision about sums `[locations, B, P, columns]` to the state `[10]`."""
    states = [tensor for tensor in (state, values.motions) if tensor is not None]
    if not (has_whole_power(settings.moreg_b) and takes(*states)):
        return reference.decide(state, sums, codebook, settings, values)
    step, has_previous, in_window = values.step, values.has_previous, values.in_window
    if values.clock is not None:
        now, compares, moves = values.clock.tolist()
        step, has_previous, in_window = int(now), compares > 0, moves > 0
    sums, codebook = sums.contiguous(), codebook.contiguous()
    _native.module().decide(
        state.data_ptr(),
        sums.data_ptr(),
        sums.shape,
        codebook.data_ptr(),
        codebook.shape[1],
        _native_settings(settings),
        step,
        has_previous,
        in_window,
        values.sequence,
        values.videos,
        address(values.motions),
    )


def begin_step(
    clock: Tensor,
    flags: Tensor,
    state: Tensor,
    first_reusable: int,
    last_reusable: int,
    window_begin: int,
    window_end: int,
) -> None:
    """Advance the clock `[3]` and write the flags `[2]`, by the reference."""
    bounds = (first_reusable, last_reusable, window_begin, window_end)
    reference.begin_step(clock, flags, state, *bounds)


def has_whole_power(exponent: float) -> bool:
    """Return True if the kernels, which only multiply, can raise a number to this power."""
    return exponent.is_integer() and abs(exponent) <= 64


@functools.lru_cache(maxsize=128)
def _native_settings(settings: DecideSettings) -> object:
    """Return the settings as `_C.DecideSettings`; the exponent is a whole number."""
    return _native.module().DecideSettings(
        metric=METRICS.index(settings.metric),
        apply_moreg=settings.apply_moreg,
        moreg_a=settings.moreg_a,
        moreg_b=int(settings.moreg_b),
        moreg_d=settings.moreg_d,
        mograd_mul=settings.mograd_mul,
        uses_mean=settings.batch == "mean",
    )
