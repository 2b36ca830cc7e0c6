"""Every op in plain torch: the definition that each kernel has to reproduce.

It also runs where no kernel exists. Every function has the name and the arguments of its op;
``functional.py`` documents and checks them. No function here reads a value back to the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.state_fields import Flag, State, StepState
from .decide_settings import DecideSettings, DecideStep

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest number of each dtype that stores a residual with a scale."""
SMALLEST_MAXIMUM = 2.0**-100
"""The maximum that replaces a smaller one, so that a token of zeros divides by no zero."""


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
    residual = _wide(x_out) if x_in is None else _wide(x_out) - _wide(x_in)
    stored, new_scale = (
        (residual.to(slot.dtype), None) if scale is None else quantize(residual, slot.dtype)
    )
    current = _scaled(stored, new_scale)
    scales = previous_scales or [None] * len(previous)
    terms = [_scaled(tensor, own) for tensor, own in zip(previous, scales, strict=True)]
    if slot_holds == "previous":
        terms.append(_scaled(slot, scale))
    columns = [*_distance_sums(_forecast(terms, coefficients), current, metric)]
    for stride in strides:
        columns += _motion_sums(current, stride)
    slot.copy_(stored)
    if scale is not None and new_scale is not None:
        scale.copy_(new_scale)
    return torch.stack(columns, dim=1).float().unsqueeze(1)


def quantize(residual: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a residual `[..., C]` in eight bits and its scale, float32 `[..., 1]`.

    With ``L``, the largest number of the dtype: ``m = max_c |p|; q = round(p * (L / m)); scale =
    m / L``. A token with an element that is not finite gets zeros and the scale infinity, so that
    it reads as NaN.
    """
    if residual.numel() == 0:
        return residual.to(dtype), residual.new_ones((*residual.shape[:-1], 1))
    largest = LARGEST[dtype]
    sizes = residual.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    maximum = sizes.amax(dim=-1, keepdim=True).clamp(min=SMALLEST_MAXIMUM)
    # A Python number divided by a tensor is multiplied by a rounded reciprocal; two tensors divide.
    factor = torch.full_like(maximum, largest) / maximum
    scale = maximum * (torch.ones((), dtype=torch.float32) / largest).item()
    numbers = torch.where(maximum.isinf(), 0.0, residual * factor)
    numbers = numbers.round() if dtype == torch.int8 else numbers
    return numbers.to(dtype), scale.float()


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store `x_out - x_in` in a slot of any shape."""
    slot.copy_(_wide(x_out) - _wide(x_in))


def conditional_add(
    out: Tensor,
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    """Write `x + sum_i c_i * (scale_i * r_i)` to `out`, or `x` without the flag. Any shape."""
    total = _wide(x)
    for index, (residual, scale) in enumerate(zip(residuals, scales, strict=True)):
        term = _scaled(residual, scale)
        total = total + coefficients[index] * term
    # The device chooses: a Python `if` would make the host wait for the flag.
    out.copy_(torch.where(flag[0] != 0, total.to(x.dtype), x))


def decide(
    state: Tensor, sums: Tensor, codebook: Tensor, settings: DecideSettings, values: DecideStep
) -> None:
    """Write the decision about sums `[locations, B, P, columns]` to the state `[10]`."""
    now: Tensor | int = values.step
    compares: Tensor | bool = values.has_previous
    moves: Tensor | bool = values.in_window
    if values.clock is not None:
        now = values.clock[StepState.STEP]
        compares = values.clock[StepState.HAS_PREVIOUS] > 0
        moves = values.clock[StepState.IN_WINDOW] > 0
    wide = _sum_dtype(state.device)
    gap = now - state[State.STEP].to(wide)
    gap = torch.where(gap > 0, gap, torch.nan)
    motions = values.motions
    if motions is None:
        motions = state[State.PREVIOUS_MOTION : State.PREVIOUS_MOTION + 1]
    # Row r belongs to video r % videos.
    videos = values.videos
    totals = torch.stack([sums[:, v::videos].to(wide).sum(dim=(1, 2)) for v in range(videos)])
    raw, distance, score, undefined = _outcomes(totals, settings, gap, moves, motions)
    if settings.apply_moreg:
        new = torch.where(score.float().isfinite(), score.float(), motions)
        motions.copy_(_choose(compares, new, motions))
    is_bad = ~distance.float().isfinite()
    raw, distance, score = (
        value.float() for value in _pooled(settings.batch, is_bad, distance, raw, distance, score)
    )
    one = torch.ones_like(distance)
    flags = torch.where(is_bad.any(), Flag.NOT_FINITE * one, 0 * one)
    flags = torch.where(undefined.any(), Flag.ZERO_DENOMINATOR * one, flags)
    rate = torch.where(flags == 0, _rate(distance, codebook), one)
    decided = {
        State.STEP: now * one,
        State.DISTANCE: _choose(compares, distance, one * torch.nan),
        State.MOTION: _choose(compares, score, one),
        State.RATE: _choose(compares, rate, one),
        State.NEXT_STEP: now + _choose(compares, rate, one),
        State.PREVIOUS_MOTION: state[State.PREVIOUS_MOTION],
        State.FLAGS: _choose(compares, flags, Flag.NO_PREVIOUS * one),
        State.RAW_DISTANCE: _choose(compares, raw, one * torch.nan),
        State.SEQUENCE: values.sequence * one,
        State.SEQUENCE_AGAIN: values.sequence * one,
    }
    state.copy_(torch.stack([decided[field] for field in State]))


def begin_step(
    clock: Tensor,
    flags: Tensor,
    state: Tensor,
    first_reusable: int,
    last_reusable: int,
    window_begin: int,
    window_end: int,
) -> None:
    """Advance the clock `[3]` and write the flags `[2]`: computed, reused."""
    step = clock[StepState.STEP] + 1
    is_reusable = (step >= first_reusable) & (step <= last_reusable)
    reuses = is_reusable & (step < state[State.NEXT_STEP])
    in_window = (step >= window_begin) & (step <= window_end)
    clock.copy_(torch.stack((step, (state[State.STEP] > 0).float(), in_window.float())))
    flags.copy_(torch.stack((~reuses, reuses)))


def _outcomes(
    totals: Tensor,
    settings: DecideSettings,
    gap: Tensor,
    moves: Tensor | bool,
    motions: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return raw distance, distance, score and "has no distance", each `[videos]`.

    Args:
        totals: `[videos, locations, columns]`, the sums of each video.
        settings: the constants of the formulas.
        gap: the steps since the last computed one, NaN if there are none.
        moves: True if the step lies in the window of motion regularization.
        motions: `[videos]`, the previous scores.
    """
    raw = distance = (_distances(totals[..., :3], settings.metric) / gap).mean(dim=1)
    undefined = _has_zero_denominator(totals, settings.metric) | gap.isnan()
    score = torch.ones_like(raw)
    if settings.apply_moreg:
        if totals.shape[2] > 3:
            last = totals[:, -1, 3:]
            power = (_motion(last) / settings.moreg_a) ** settings.moreg_b
            score = _choose(moves, power / settings.moreg_d, score)
            undefined = undefined | _choose(moves, (last[:, 1::2] == 0).any(dim=1), undefined)
        distance = raw * (score + (settings.mograd_mul * (score - motions) / gap).abs())
    return raw, torch.where(undefined, torch.nan, distance), score, undefined


def _pooled(batch: str, is_bad: Tensor, distance: Tensor, *values: Tensor) -> list[Tensor]:
    """Return the values `[videos]` of the video that decides, or their means."""
    if batch == "mean":
        return [value.mean() for value in values]
    # The first of the largest distances decides; one that is not finite is larger than all others.
    first = torch.where(is_bad, torch.inf, distance).argmax().unsqueeze(0)
    # Indexing with a tensor would read it back to the host; gather does not.
    return [value.gather(0, first)[0] for value in values]


def _choose(condition: Tensor | bool, yes: Tensor, no: Tensor) -> Tensor:
    if isinstance(condition, Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


def _wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or unchanged in float64."""
    is_wider = tensor.dtype == torch.float64
    return tensor if is_wider else tensor.float()


def _scaled(tensor: Tensor, scale: Tensor | None) -> Tensor:
    """Return a stored residual `[..., C]` times its scale `[..., 1]`, in float32 or wider."""
    return _wide(tensor) if scale is None else _wide(tensor) * scale


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64.


def _sum(values: Tensor) -> Tensor:
    """Return the sum `[B]` over frames, tokens and channels."""
    return values.sum(dim=(1, 2, 3), dtype=_sum_dtype(values.device))


def _forecast(terms: Sequence[Tensor], coefficients: Tensor | None) -> Tensor | None:
    """Return the sum of the terms `[B, F, S, C]`, added from left to right; None without any."""
    if coefficients is None:
        return terms[0] if terms else None
    total: Tensor | None = None
    for index, term in enumerate(terms):
        product = coefficients[index] * term
        total = product if total is None else total + product
    return total


def _distance_sums(
    forecast: Tensor | None, current: Tensor, metric: str
) -> tuple[Tensor, Tensor, Tensor]:
    zero = torch.zeros(current.shape[0], dtype=_sum_dtype(current.device), device=current.device)
    if forecast is None:
        return zero, zero, zero
    if metric == "l1":
        return _sum((forecast - current).abs()), _sum(forecast.abs()), zero
    if metric == "l2":
        return _sum((forecast - current).square()), _sum(forecast.square()), zero
    return _sum(forecast * current), _sum(forecast.square()), _sum(current.square())


def _motion_sums(current: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    later, earlier = current[:, stride:], current[:, :-stride]
    return _sum((later - earlier).abs()), _sum(later.abs()) + _sum(earlier.abs())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, NaN where the denominator is zero."""
    return numerator / denominator.where(denominator != 0, torch.nan)


def _distances(totals: Tensor, metric: str) -> Tensor:
    """Return the distances `[videos, locations]` before the division by the gap."""
    first, second, third = totals.unbind(dim=-1)
    if metric == "l1":
        return _ratio(first, second)
    if metric == "l2":
        return _ratio(first.sqrt(), second.sqrt())
    return 1 - _ratio(first, (second * third).sqrt())


def _motion(totals: Tensor) -> Tensor:
    """Return the motion of each video, the mean over its frame strides."""
    return _ratio(totals[:, 0::2], totals[:, 1::2]).mean(dim=1)


def _has_zero_denominator(totals: Tensor, metric: str) -> Tensor:
    """Return for each video True if a location has a distance with a zero denominator."""
    denominators = totals[..., 1] * totals[..., 2] if metric == "cosine" else totals[..., 1]
    return (denominators == 0).any(dim=-1)


def _rate(distance: Tensor, codebook: Tensor) -> Tensor:
    """Return the rate of the first threshold above the distance, or the last rate."""
    thresholds, rates = codebook.unbind()
    index = (distance >= thresholds).sum().clamp(max=len(rates) - 1)
    # Indexing with a tensor would read it back to the host; gather does not.
    return rates.gather(0, index.unsqueeze(0))[0]
