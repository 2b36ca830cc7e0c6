"""The maths of every op in plain torch.

It is the truth that the tests hold each kernel to, and what runs where no kernel exists. Every
function has the name and the arguments of its op in ``ops.py``, which documents and checks them.
Nothing here reads a value back to the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NOTHING, PREVIOUS, SUM = 0, 1, 2
"""What a slot holds when `distance_update` comes, see there."""
ANY, MEAN = 0, 1
"""Which of the videos' distances `decide` goes by."""
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest numbers of the dtypes in which a residual is stored with a scale."""
SMALLEST_MAXIMUM = 2.0**-100
"""What a token of zeros is scaled by, so that nothing is divided by zero."""


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
    """``p = x_out - x_in; c = sum_i a_i * previous_i; sums over (c, p); slot = p``."""
    residual = _wide(x_out) if x_in is None else _wide(x_out) - _wide(x_in)
    if slot_holds == SUM:
        residual = _wide(slot) + residual
    stored, new_scale = (
        (residual.to(slot.dtype), None) if scale is None else quantize(residual, slot.dtype)
    )
    current = _scaled(stored, new_scale)
    scales = previous_scales or [None] * len(previous)
    terms = [_scaled(tensor, own) for tensor, own in zip(previous, scales, strict=True)]
    if slot_holds == PREVIOUS:
        terms.append(_scaled(slot, scale))
    columns = [*_distance_sums(_forecast(terms, coefficients), current, metric)]
    for stride in strides:
        columns += _motion_sums(current, stride)
    slot.copy_(stored)
    if scale is not None and new_scale is not None:
        scale.copy_(new_scale)
    return torch.stack(columns, dim=1).float().unsqueeze(1)


def quantize(residual: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``m = max_c |p|; q = round(p * (L / m)); scale = m / L``: eight bits and a scale a token.

    ``L`` is the largest number of the dtype. A token that is not finite throughout gets the scale
    infinity and zeros, so that it is NaN when it is read.
    """
    if residual.numel() == 0:
        return residual.to(dtype), residual.new_ones((*residual.shape[:-1], 1))
    largest = LARGEST[dtype]
    sizes = residual.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    maximum = sizes.amax(dim=-1, keepdim=True).clamp(min=SMALLEST_MAXIMUM)
    # By a tensor: a Python number divided by one is that number times a rounded reciprocal.
    factor = torch.full_like(maximum, largest) / maximum
    scale = maximum * (torch.ones((), dtype=torch.float32) / largest).item()
    numbers = torch.where(maximum.isinf(), 0.0, residual * factor)
    numbers = numbers.round() if dtype == torch.int8 else numbers
    return numbers.to(dtype), scale.float()


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool) -> None:
    """``slot = (slot +) (x_out - x_in)``."""
    residual = _wide(x_out) - _wide(x_in)
    slot.copy_(_wide(slot) + residual if accumulate else residual)


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    """``if flag: x += sum_i c_i * (scale_i * r_i)``."""
    total = _wide(x)
    for index, (residual, scale) in enumerate(zip(residuals, scales, strict=True)):
        term = _scaled(residual, scale)
        total = total + coefficients[index] * term
    # A choice on the device: a Python `if` would make the host wait for the flag.
    x.copy_(torch.where(flag[0] != 0, total.to(x.dtype), x))


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
    batch: int = ANY,
    motions: Tensor | None = None,
) -> None:
    """Sums of the residuals -> distance, rate and next computed step."""
    now: Tensor | int = step
    compares: Tensor | bool = has_previous
    moves: Tensor | bool = in_window
    if clock is not None:
        now, compares, moves = clock[0], clock[1] > 0, clock[2] > 0
    accumulate = _sum_dtype(state.device)
    gap = now - state[1].to(accumulate)
    gap = torch.where(gap > 0, gap, torch.nan)
    moreg = (moreg_a, moreg_b, moreg_d, mograd_mul) if apply_moreg else None
    motions = state[6:7] if motions is None else motions
    # Row r is of video r % videos.
    totals = torch.stack([sums[:, v::videos].to(accumulate).sum(dim=(1, 2)) for v in range(videos)])
    raw, distance, score, undefined = _outcomes(totals, metric, gap, moves, moreg, motions)
    if apply_moreg:
        new = torch.where(score.float().isfinite(), score.float(), motions)
        motions.copy_(_choose(compares, new, motions))
    is_bad = ~distance.float().isfinite()
    raw, distance, score = (
        value.float() for value in _pooled(batch, is_bad, distance, raw, distance, score)
    )
    one = torch.ones_like(distance)
    nothing = one * torch.nan
    flags = torch.where(undefined.any(), 4 * one, torch.where(is_bad.any(), 2 * one, 0 * one))
    rate = torch.where(flags == 0, _rate(distance, codebook), one)
    decided = (now * one, distance, score, rate, now + rate, flags, raw)
    undecided = (now * one, nothing, one, one, now + one, one, nothing)
    chosen = [_choose(compares, a, b) for a, b in zip(decided, undecided, strict=True)]
    number = sequence * one
    state.copy_(torch.stack((number, *chosen[:5], state[6], *chosen[5:], number)))


def begin_step(
    clock: Tensor,
    flags: Tensor,
    state: Tensor,
    first_reusable: int,
    last_reusable: int,
    window_begin: int,
    window_end: int,
) -> None:
    """step += 1; compute = step not in reusable or step >= next step of the state."""
    step = clock[0] + 1
    reuses = (step >= first_reusable) & (step <= last_reusable) & (step < state[5])
    in_window = (step >= window_begin) & (step <= window_end)
    clock.copy_(torch.stack((step, (state[1] > 0).float(), in_window.float())))
    flags.copy_(torch.stack((~reuses, reuses)))


def _outcomes(
    totals: Tensor,
    metric: int,
    gap: Tensor,
    moves: Tensor | bool,
    moreg: tuple[float, float, float, float] | None,
    motions: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each video: distance without and with motion, score, whether it has no distance."""
    raw = distance = (_distances(totals[..., :3], metric) / gap).mean(dim=1)
    undefined = _has_zero_denominator(totals, metric) | gap.isnan()
    score = torch.ones_like(raw)
    if moreg is not None:
        a, b, d, factor = moreg
        if totals.shape[2] > 3:
            last = totals[:, -1, 3:]
            score = _choose(moves, (_motion(last) / a) ** b / d, score)
            undefined = undefined | _choose(moves, (last[:, 1::2] == 0).any(dim=1), undefined)
        distance = raw * (score + (factor * (score - motions) / gap).abs())
    return raw, torch.where(undefined, torch.nan, distance), score, undefined


def _pooled(batch: int, is_bad: Tensor, distance: Tensor, *values: Tensor) -> list[Tensor]:
    """The values of the video that decides, or their means."""
    if batch == MEAN:
        return [value.mean() for value in values]
    # The first of the largest; what is not finite is larger than all.
    first = torch.where(is_bad, torch.inf, distance).argmax().unsqueeze(0)
    # Indexing with a tensor would read it back to the host; gather does not.
    return [value.gather(0, first)[0] for value in values]


def _choose(condition: Tensor | bool, yes: Tensor, no: Tensor) -> Tensor:
    if isinstance(condition, Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider."""
    is_wider = tensor.dtype == torch.float64
    return tensor if is_wider else tensor.float()


def _scaled(tensor: Tensor, scale: Tensor | None) -> Tensor:
    return _wide(tensor) if scale is None else _wide(tensor) * scale


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64.


def _sum(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3), dtype=_sum_dtype(values.device))


def _forecast(terms: Sequence[Tensor], coefficients: Tensor | None) -> Tensor | None:
    """What the terms add up to, from left to right; None without any."""
    if coefficients is None:
        return terms[0] if terms else None
    total: Tensor | None = None
    for index, term in enumerate(terms):
        product = coefficients[index] * term
        total = product if total is None else total + product
    return total


def _distance_sums(
    forecast: Tensor | None, current: Tensor, metric: int
) -> tuple[Tensor, Tensor, Tensor]:
    zero = torch.zeros(current.shape[0], dtype=_sum_dtype(current.device), device=current.device)
    if forecast is None:
        return zero, zero, zero
    if metric == 0:
        return _sum((forecast - current).abs()), _sum(forecast.abs()), zero
    if metric == 1:
        return _sum((forecast - current).square()), _sum(forecast.square()), zero
    return _sum(forecast * current), _sum(forecast.square()), _sum(current.square())


def _motion_sums(current: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    later, earlier = current[:, stride:], current[:, :-stride]
    return _sum((later - earlier).abs()), _sum(later.abs()) + _sum(earlier.abs())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / denominator.where(denominator != 0, torch.nan)


def _distances(totals: Tensor, metric: int) -> Tensor:
    """One distance per video and location from its sums, before the division by the step gap."""
    first, second, third = totals.unbind(dim=-1)
    if metric == 0:
        return _ratio(first, second)
    if metric == 1:
        return _ratio(first.sqrt(), second.sqrt())
    return 1 - _ratio(first, (second * third).sqrt())


def _motion(totals: Tensor) -> Tensor:
    """One score per video, the mean over its frame strides."""
    return _ratio(totals[:, 0::2], totals[:, 1::2]).mean(dim=1)


def _has_zero_denominator(totals: Tensor, metric: int) -> Tensor:
    denominators = totals[..., 1] * totals[..., 2] if metric == 2 else totals[..., 1]
    return (denominators == 0).any(dim=-1)


def _rate(distance: Tensor, codebook: Tensor) -> Tensor:
    thresholds, rates = codebook.unbind()
    index = (distance >= thresholds).sum().clamp(max=len(rates) - 1)
    # Indexing with a tensor would read it back to the host; gather does not.
    return rates.gather(0, index.unsqueeze(0))[0]
