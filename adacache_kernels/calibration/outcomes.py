"""Outcomes of generations: a stored sample of one, and its error against another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..measure.psnr_ssim import EQUAL_PSNR, mean_squared_error, psnr_of_error

Outcome = NDArray[np.float32]

# Elements that are stored of an outcome, 4 MiB. Their PSNR is right to 0.1 dB even if the standard
# deviation of the squared errors is 20 times their mean.
OUTCOME_SAMPLE = 2**20


def as_array(outcome: Any) -> Outcome:
    """Return a tensor or an array as a float32 array on the host."""
    if isinstance(outcome, torch.Tensor):
        outcome = outcome.detach().float().cpu().numpy()
    return np.asarray(outcome, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StoredOutcome:
    """An outcome, or a sample of its elements if it has more than `OUTCOME_SAMPLE`.

    Args:
        values: `[elements]`, the stored ones.
        shape: of the whole outcome.
        lowest, highest: values of the whole outcome.
    """

    values: Outcome
    shape: tuple[int, ...]
    lowest: float
    highest: float

    @classmethod
    def of(cls, outcome: Outcome) -> StoredOutcome:
        """Store an outcome."""
        return cls(_sample(outcome), outcome.shape, float(outcome.min()), float(outcome.max()))

    def squared_error(self, outcome: Outcome) -> float:
        """Return mean((outcome - this)^2) over the stored elements.

        Raises:
            ValueError: the shapes differ.
        """
        _check_shapes(outcome.shape, self.shape)
        return mean_squared_error(_sample(outcome), self.values)


def squared_error(outcome: Outcome, reference: Outcome) -> float:
    """Return mean((outcome - reference)^2).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(outcome.shape, reference.shape)
    return mean_squared_error(outcome, reference)


def capped_psnr(error: float, peak: float) -> float:
    """Return the PSNR of a mean squared error in dB, at most `EQUAL_PSNR`.

    Args:
        error: the mean squared error.
        peak: the range of the values of an outcome.
    """
    return min(EQUAL_PSNR, psnr_of_error(error, peak))


def _sample(outcome: Outcome) -> Outcome:
    flat = outcome.reshape(-1)
    if flat.size <= OUTCOME_SAMPLE:
        return flat
    # A new generator each time: all outcomes of one size give the same elements.
    return flat[np.random.default_rng(flat.size).integers(flat.size, size=OUTCOME_SAMPLE)]


def _check_shapes(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(
            f"the outcomes of one case have shapes {shape} and {expected}; generate must return "
            "the same shape whenever it is called with a case"
        )
