"""The ops on the CPU: the compiled code of ``csrc/``, on as many threads as torch has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native
from . import reference


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: int,
    slot_holds: int,
    scale: Tensor | None = None,
    previous_scales: Sequence[Tensor | None] = (),
) -> Tensor:
    scales = [other for other in (scale, *previous_scales) if other is not None]
    optional = [tensor for tensor in (x_in, coefficients, *scales) if tensor is not None]
    takes_slot = _native.takes if scale is None else _native.takes_stored
    is_native = takes_slot(slot) and _native.takes_stored(*previous)
    if not (is_native and _native.takes(x_out, *optional)):
        where_to = (slot, x_out, x_in, previous, coefficients)
        how = (strides, metric, slot_holds, scale, previous_scales)
        return reference.distance_update(*where_to, *how)
    sums = torch.empty((slot.shape[0], 1, 3 + 2 * len(strides)), dtype=torch.float32)
    _native.module().distance_update(
        _native.view(slot),
        _native.view(x_out),
        _view(x_in),
        [_native.view(tensor) for tensor in previous],
        0 if coefficients is None else coefficients.data_ptr(),
        slot_holds,
        strides,
        metric,
        _view(scale),
        [_view(tensor) for tensor in previous_scales],
        sums.data_ptr(),
        torch.get_num_threads(),
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool) -> None:
    if not _native.takes(slot, x_out, x_in):
        return reference.residual_update(slot, x_out, x_in, accumulate)
    slot_view, out_view, in_view = map(_native.view, (slot, x_out, x_in))
    threads = torch.get_num_threads()
    _native.module().residual_update(slot_view, out_view, in_view, accumulate, threads)


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    given_scales = [scale for scale in scales if scale is not None]
    if not (_native.takes(x, coefficients, *given_scales) and _native.takes_stored(*residuals)):
        return reference.conditional_add(x, residuals, scales, coefficients, flag)
    _native.module().conditional_add(
        _native.view(x),
        [_native.view(residual) for residual in residuals],
        [_view(scale) for scale in scales],
        coefficients.data_ptr(),
        flag.data_ptr(),
        torch.get_num_threads(),
    )


def decide(
    state: Tensor,
    sums: Tensor,
    codebook: Tensor,
    step: int,
    metric: int,
    has_previous: bool,
    apply_moreg: bool,
    in_window: bool,
    moreg_a: float,
    moreg_b: float,
    moreg_d: float,
    mograd_mul: float,
    sequence: int = 0,
    clock: Tensor | None = None,
    videos: int = 1,
    batch: int = 0,
    motions: Tensor | None = None,
) -> None:
    states = [tensor for tensor in (state, motions) if tensor is not None]
    if not (has_whole_power(moreg_b) and _native.takes(*states)):
        flags = (has_previous, apply_moreg, in_window)
        moreg = (moreg_a, moreg_b, moreg_d, mograd_mul)
        how = (step, metric, *flags, *moreg, sequence, clock, videos, batch, motions)
        return reference.decide(state, sums, codebook, *how)
    if clock is not None:
        now, compares, moves = clock.tolist()
        step, has_previous, in_window = int(now), compares > 0, moves > 0
    sums, codebook = sums.contiguous(), codebook.contiguous()
    _native.module().decide(
        state.data_ptr(),
        sums.data_ptr(),
        sums.shape,
        codebook.data_ptr(),
        codebook.shape[1],
        step,
        metric,
        has_previous,
        apply_moreg,
        in_window,
        moreg_a,
        int(moreg_b),
        moreg_d,
        mograd_mul,
        sequence,
        videos,
        batch == reference.MEAN,
        0 if motions is None else motions.data_ptr(),
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
    bounds = (first_reusable, last_reusable, window_begin, window_end)
    reference.begin_step(clock, flags, state, *bounds)


def _view(tensor: Tensor | None) -> object:
    return None if tensor is None else _native.view(tensor)


def has_whole_power(exponent: float) -> bool:
    """Whether the compiled kernels, which multiply, can raise to this power; others need pow."""
    return exponent.is_integer() and abs(exponent) <= 64
