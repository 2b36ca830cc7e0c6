"""The ops as a PyTorch user writes them, and as the authors of AdaCache did.

Natural code comes first, in the dtype of the tensors. It runs as "eager" and, through
`torch.compile`, as "compile". Then comes the best eager PyTorch code without temporaries, "eager in
place". Its host reads the flag, which on a GPU is a host wait. Last comes the released code of the
authors. It takes norms over the whole batch and stores nothing, because it keeps the block's
residual itself.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distance(slot: Tensor, x_out: Tensor) -> Tensor:
    """Return the sums of |slot - x_out| and |slot| of each sample; store x_out in the slot."""
    sums = torch.stack(_distance_sums(slot, x_out), dim=1)
    slot.copy_(x_out)
    return sums


def distance_of_difference(slot: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
    """Return the sums of `distance` for the residual x_out - x_in."""
    return distance(slot, x_out - x_in)


def distance_and_motion(slot: Tensor, x_out: Tensor) -> Tensor:
    """Return the sums of `distance` and of the motion score at frame stride 1."""
    later, earlier = x_out[:, 1:], x_out[:, :-1]
    motion = [_sum((later - earlier).abs()), _sum(later.abs()) + _sum(earlier.abs())]
    sums = torch.stack([*_distance_sums(slot, x_out), *motion], dim=1)
    slot.copy_(x_out)
    return sums


def distance_to_forecast(
    slot: Tensor, x_out: Tensor, x_in: Tensor, newer: Tensor, coefficients: Tensor
) -> Tensor:
    """Return the sums of x_out - x_in against a forecast from `newer` and the old slot."""
    p = x_out - x_in
    forecast = coefficients[0] * newer + coefficients[1] * slot
    sums = torch.stack(_distance_sums(forecast, p), dim=1)
    slot.copy_(p)
    return sums


def distance_into_int8(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
    """Store x_out - x_in in an int8 slot with a scale for each token; return its sums."""
    p = (x_out - x_in).float()
    new_scale = p.abs().amax(dim=-1, keepdim=True) / 127
    return _distance_and_store(slot, scale, (p / new_scale).round().to(slot.dtype), new_scale)


def distance_into_float8(slot: Tensor, scale: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
    """Store x_out - x_in in a float8 slot with a scale for each token; return its sums."""
    p = (x_out - x_in).float()
    new_scale = p.abs().amax(dim=-1, keepdim=True) / 448
    return _distance_and_store(slot, scale, (p / new_scale).to(slot.dtype), new_scale)


def residual(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store x_out - x_in in the slot."""
    slot.copy_(x_out - x_in)


def add(x: Tensor, newer: Tensor, coefficients: Tensor, flag: Tensor) -> None:
    """Add c * newer to x if the flag is set; the device chooses."""
    x.copy_(torch.where(flag != 0, x + coefficients[0] * newer, x))


def add_out_of_place(
    x: Tensor, newer: Tensor, out: Tensor, coefficients: Tensor, flag: Tensor
) -> None:
    """Write x, plus c * newer if the flag is set, to out; the device chooses."""
    out.copy_(torch.where(flag != 0, x + coefficients[0] * newer, x))


def add_two(x: Tensor, newer: Tensor, older: Tensor, coefficients: Tensor, flag: Tensor) -> None:
    """Add two residuals to x if the flag is set; the device chooses."""
    total = x + coefficients[0] * newer + coefficients[1] * older
    x.copy_(torch.where(flag != 0, total, x))


def add_quantised(
    x: Tensor, quantised: Tensor, scale: Tensor, coefficients: Tensor, flag: Tensor
) -> None:
    """Add an int8 residual, with a scale for each token, to x if the flag is set."""
    total = x + coefficients[0] * (quantised * scale)
    x.copy_(torch.where(flag != 0, total.to(x.dtype), x))


def decide(sums: Tensor, codebook: Tensor, gap: Tensor, previous_score: Tensor) -> Tensor:
    """Return the rate from the sums of `distance_and_motion`, all on the device."""
    totals = sums.sum(dim=0)
    raw = totals[0] / totals[1] / gap
    distance = raw * _motion_factor(totals[3] / totals[4], gap, previous_score)
    index = (distance >= codebook[0]).sum().clamp(max=codebook.shape[1] - 1)
    return codebook[1].gather(0, index.view(1))


def residual_in_place(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store x_out - x_in in the slot in one pass."""
    torch.sub(x_out, x_in, out=slot)


def add_in_place(x: Tensor, newer: Tensor, coefficients: Tensor, flag: Tensor) -> None:
    """Add one residual to x in one pass; the host reads the flag."""
    if flag.item():
        x.add_(newer, alpha=coefficients[0].item())


def add_two_in_place(
    x: Tensor, newer: Tensor, older: Tensor, coefficients: Tensor, flag: Tensor
) -> None:
    """Add two residuals to x in two passes; the host reads the flag."""
    if flag.item():
        first, second = coefficients.tolist()
        x.add_(newer, alpha=first).add_(older, alpha=second)


def add_quantised_in_place(
    x: Tensor, quantised: Tensor, scale: Tensor, coefficients: Tensor, flag: Tensor
) -> None:
    """Add an int8 residual to x after two conversions; the host reads the flag."""
    if flag.item():
        x.addcmul_(quantised.to(x.dtype), scale.to(x.dtype), value=coefficients[0].item())


def authors_distance(slot: Tensor, x_out: Tensor) -> Tensor:
    """Return ||c - p|| / ||c|| over the batch, as `[1]`."""
    return ((slot - x_out).norm(1) / slot.norm(1)).view(1)


def authors_distance_of_difference(slot: Tensor, x_out: Tensor, x_in: Tensor) -> Tensor:
    """Return the distance `[1]` of the residual x_out - x_in."""
    return authors_distance(slot, x_out - x_in)


def authors_distance_and_motion(slot: Tensor, x_out: Tensor) -> Tensor:
    """Return the distance and ||p[1:] - p[:-1]|| / (||p[1:]|| + ||p[:-1]||), as `[2]`."""
    later, earlier = x_out[:, 1:], x_out[:, :-1]
    motion = (later - earlier).norm(1) / (later.norm(1) + earlier.norm(1))
    return torch.cat([authors_distance(slot, x_out), motion.view(1)])


def authors_comparisons(
    distances: Tensor, thresholds: list[float], gap: int, previous_score: Tensor
) -> list[Tensor]:
    """Return one truth value for each threshold; the host reads them to get the rate."""
    distance = distances[0] / gap * _motion_factor(distances[1], gap, previous_score)
    return [distance < threshold for threshold in thresholds]


def _motion_factor(motion: Tensor, gap: Tensor | int, previous_score: Tensor) -> Tensor:
    score = (motion / 0.385) ** 8
    return score + (10 * (score - previous_score) / gap).abs()


def _distance_sums(c: Tensor, p: Tensor) -> list[Tensor]:
    change = _sum((c - p).abs())
    return [change, _sum(c.abs()), torch.zeros_like(change)]


def _distance_and_store(slot: Tensor, scale: Tensor, codes: Tensor, new_scale: Tensor) -> Tensor:
    sums = _distance_sums(slot.float() * scale, codes.float() * new_scale)
    slot.copy_(codes)
    scale.copy_(new_scale)
    return torch.stack(sums, dim=1)


def _sum(x: Tensor) -> Tensor:
    return x.sum(dim=(1, 2, 3), dtype=torch.float32)
