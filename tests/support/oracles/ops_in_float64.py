"""The oracle of the ops, in float64 and plain Python, with which reference.py is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def exact_forecast(terms: Sequence[Tensor], coefficients: Tensor | None) -> Tensor | None:
    """Return the forecast of distance_update `[B, F, S, C]` in float64; None without terms."""
    if coefficients is None:
        return terms[0].double() if terms else None
    return sum(a.double() * r.double() for a, r in zip(coefficients, terms, strict=True))


def exact_sums(
    forecast: Tensor | None, current: Tensor, strides: tuple[int, ...], metric: str
) -> tuple[Tensor, Tensor]:
    """Return the sums of distance_update in float64, and the sums of the terms' magnitudes."""
    p = current.double()
    nothing = torch.zeros_like(p)
    c = nothing if forecast is None else forecast
    terms = {
        "l1": [(c - p).abs(), c.abs(), nothing],
        "l2": [(c - p) ** 2, c**2, nothing],
        "cosine": [c * p, c**2, p**2],
    }[metric]
    if forecast is None:
        terms = [nothing] * 3
    for stride in strides:
        later, earlier = p[:, stride:], p[:, :-stride]
        terms += [(later - earlier).abs(), torch.cat([later.abs(), earlier.abs()], dim=1)]
    sums = [term.sum(dim=(1, 2, 3)) for term in terms]
    magnitudes = [term.abs().sum(dim=(1, 2, 3)) for term in terms]
    return torch.stack(sums, dim=1), torch.stack(magnitudes, dim=1)


def finite(value: float) -> bool:
    """Return True if the value is finite as float32."""
    return abs(value) <= torch.finfo(torch.float32).max


def exact_decision(
    state: list[float],
    sums: list[list[list[float]]],
    codebook: list[tuple[float, float]],
    step: int,
    metric: str,
    has_previous: bool,
    apply_moreg: bool,
    in_window: bool,
    moreg: tuple[float, float, float] = (0.385, 8.0, 1.0),
    mograd_mul: float = 10.0,
) -> list[float]:
    """Return the state after decide."""
    previous_step, previous_motion = state[1], state[6]
    if not has_previous:
        return [0, step, math.nan, 1, 1, step + 1, previous_motion, 1, math.nan, 0]
    gap = step - previous_step
    denominators = [float(gap > 0)]

    def divide(numerator: float, denominator: float) -> float:
        denominators.append(denominator)
        return numerator / denominator if denominator else math.nan

    distances = []
    for location in sums:
        first, second, third = (sum(sample[i] for sample in location) for i in range(3))
        if metric == "l1":
            distances.append(divide(first, second))
        elif metric == "l2":
            distances.append(divide(math.sqrt(first), math.sqrt(second)))
        else:
            distances.append(1 - divide(first, math.sqrt(second * third)))
    raw = sum(distances) / len(distances) / gap if gap > 0 else math.nan

    score, distance = 1.0, raw
    if apply_moreg and in_window:
        columns = len(sums[-1][0])
        motions = [
            divide(sum(x[i] for x in sums[-1]), sum(x[i + 1] for x in sums[-1]))
            for i in range(3, columns, 2)
        ]
        a, b, d = moreg
        score = (sum(motions) / len(motions) / a) ** b / d
    if apply_moreg:
        gradient = mograd_mul * (score - previous_motion) / gap if gap > 0 else math.nan
        distance = raw * (score + abs(gradient))
        if finite(score):
            previous_motion = score

    if 0 in denominators:
        distance = math.nan
    flags = 4 if 0 in denominators else 0 if finite(distance) else 2
    rate = 1.0
    if not flags:
        rates = [r for threshold, r in codebook if np.float32(distance) < np.float32(threshold)]
        rate = rates[0] if rates else codebook[-1][1]
    return [0, step, distance, score, rate, step + rate, previous_motion, flags, raw, 0]


def exact_batch_decision(
    state: list[float],
    sums: list[list[list[float]]],
    codebook: list[tuple[float, float]],
    *arguments: Any,
    videos: int,
    batch: str,
    motions: list[float],
) -> tuple[list[float], list[float]]:
    """Return state and motions after decide with several videos; row r belongs to r % videos."""
    found = [
        exact_decision(
            [*state[:6], motions[video], *state[7:]],
            [location[video::videos] for location in sums],
            codebook,
            *arguments,
        )
        for video in range(videos)
    ]
    motions = [each[6] for each in found]
    flags = [int(each[7]) for each in found]
    together = list(max(found, key=lambda each: each[2]))
    if batch == "mean":
        for field in (2, 3, 8):
            together[field] = sum(each[field] for each in found) / videos
    elif any(flags):
        together = list(next(each for each in found if each[7]))
    together[4] = 1.0
    if not any(flags):
        reached = [float(np.float32(together[2]) >= np.float32(t)) for t, _ in codebook]
        together[4] = codebook[min(int(sum(reached)), len(codebook) - 1)][1]
    together[5] = together[1] + together[4]
    together[6] = state[6]
    together[7] = next((flag for flag in (1, 4, 2) if flag in flags), 0)
    return together, motions
