"""Outcomes of generations: what is kept of one, and how far another one is from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Outcome = NDArray[np.float32]

# Elements that are kept of an outcome, 4 MiB: where the standard deviation of squared errors is 20
# times their mean, which is much, a PSNR over so many is right to 0.1 dB.
SAMPLE = 2**20
MOST_PSNR = 100.0


def as_array(outcome: Any) -> Outcome:
    """A tensor or array in float32 on the host."""
    if isinstance(outcome, torch.Tensor):
        outcome = outcome.detach().float().cpu().numpy()
    return np.asarray(outcome, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StoredOutcome:
    """An outcome, or a sample of its elements if it has more than `SAMPLE`."""

    values: Outcome
    shape: tuple[int, ...]
    lowest: float
    highest: float

    @classmethod
    def of(cls, outcome: Outcome) -> StoredOutcome:
        """What is kept of it."""
        return cls(_sample(outcome), outcome.shape, float(outcome.min()), float(outcome.max()))

    def squared_error(self, outcome: Outcome) -> float:
        """mean((outcome - this)^2) over what is kept.

        Raises:
            ValueError: shapes that differ.
        """
        _check_shapes(outcome.shape, self.shape)
        return _mean_square(_sample(outcome) - self.values)


def squared_error(outcome: Outcome, reference: Outcome) -> float:
    """mean((outcome - reference)^2).

    Raises:
        ValueError: shapes that differ.
    """
    _check_shapes(outcome.shape, reference.shape)
    return _mean_square(outcome - reference)


def psnr(error: float, peak: float) -> float:
    """10 log10(peak^2 / error) in dB of a mean squared error, `MOST_PSNR` at most."""
    if error == 0.0:
        return MOST_PSNR
    return min(MOST_PSNR, 10 * math.log10(peak**2 / error))


def _sample(outcome: Outcome) -> Outcome:
    flat = outcome.reshape(-1)
    if flat.size <= SAMPLE:
        return flat
    # The same elements of all outcomes of a size: the generator begins anew each time.
    return flat[np.random.default_rng(flat.size).integers(flat.size, size=SAMPLE)]


def _mean_square(difference: Outcome) -> float:
    return float(np.mean(np.square(difference), dtype=np.float64))


def _check_shapes(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(
            f"the outcome of one case has shapes {found} and {expected}; generate must do the same "
            "whenever it is called"
        )
