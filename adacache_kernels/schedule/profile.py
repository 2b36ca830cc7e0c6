"""Calibrated profiles: the forecast errors and sensitivities of a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calibrated_for import CalibratedFor, parse_calibrated_for
from .files import write_whole
from .forecast import FittedForecast, fit
from .json_file import parse_dataclass, read_json, without_infinities
from .planner import Plan

FORMAT = 1
Array = NDArray[np.float64]

MOST_STEPS = 100_000
"""Most steps of a generation."""
LARGEST_NUMBER = 1e100
"""Largest size of an entry: products of three entries are finite."""


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Inner products of residuals, and sensitivities of the video, from calibration generations.

    Args:
        model: class and config of the transformer.
        scheduler: class and config of the scheduler; None for a bare model.
        num_steps: number of steps of a generation.
        gram: float64 [steps, steps]; inner products of the residuals of any two steps, averaged
            over the generations and scaled to a trace of `num_steps`.
        span_grams: the same for the residual of each span, by the name of its block list.
        sensitivity: float64 [steps]; squared error of the video per squared error of the residuals
            at a step. Only ratios matter.
        moreg_hyp: (a, b, d) of motion regularization, fitted so that the motion score is the
            expected error of a video with that motion, relative to the mean.
        notes: notes on the calibration, for people.
    """

    model: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    num_steps: int
    gram: Array
    span_grams: Mapping[str, Array]
    sensitivity: Array
    moreg_hyp: tuple[float, float, float] = (1.0, 0.0, 1.0)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Profile({self.model.get('class')}, {self.num_steps} steps)"

    def plan(self, order: int) -> Plan:
        """Return the best schedules for a forecast of this order, 0 to 2."""
        return _plan(self, order)

    def forecast(self, order: int) -> FittedForecast:
        """Return the least-squares forecast of this order, 0 to 2."""
        return FittedForecast(order, self.gram)

    def expected_error(self, order: int, history: Sequence[int], step: int) -> float:
        """Return the forecast error ||R - F|| / ||F|| that the calibration expects at a step.

        Args:
            order: order of the forecast F, 0 to 2.
            history: computed steps before `step`, the newest first.
            step: the step, counted from 1, whose residual is R.

        Returns:
            The mean over the spans.
        """
        return forecast_error(self.gram, self.span_grams, order, history, step)

    def check(
        self, model: Mapping[str, Any], scheduler: Mapping[str, Any] | None, num_steps: int
    ) -> None:
        """Raise if a generation differs from what the profile is calibrated for.

        Args:
            model: class and config of the transformer.
            scheduler: class and config of the scheduler; None for a bare model.
            num_steps: number of steps of the generation.

        Raises:
            ValueError: model, scheduler or number of steps differ. The message names the
                difference.
        """
        self.calibrated_for.check(
            model, scheduler, num_steps, "the profile", "patch without profile="
        )

    @property
    def calibrated_for(self) -> CalibratedFor:
        """Return the model, the scheduler and the number of steps."""
        return CalibratedFor(self.model, self.scheduler, self.num_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists, for JSON.

        Of a matrix it has the upper triangle, row after row.
        """
        return {
            "format": FORMAT,
            "model": dict(self.model),
            "scheduler": None if self.scheduler is None else dict(self.scheduler),
            "num_steps": self.num_steps,
            "sensitivity": [float(f"{value:.4g}") for value in self.sensitivity],
            "moreg_hyp": list(self.moreg_hyp),
            "gram": _upper(self.gram),
            "span_grams": {name: _upper(gram) for name, gram in self.span_grams.items()},
            "notes": without_infinities(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write the profile to a JSON file, as a whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        write_whole(path, json.dumps(self.to_dict(), allow_nan=False) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Return the profile of a dict that `to_dict` returned.

        Raises:
            ValueError: an entry is missing, unknown or wrong, or does not fit the number of steps.
                The message names it.
        """
        try:
            return _parsed(parse_dataclass(_ProfileFile, values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"this is no profile of adacache_kernels: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read the profile of a JSON file that `save` wrote.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file has no profile. The message names the file.
        """
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _ProfileFile:
    """The entries of a profile's JSON object."""

    format: int
    model: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    num_steps: int
    sensitivity: Sequence[float]
    moreg_hyp: Sequence[float]
    gram: Sequence[float]
    span_grams: Mapping[str, Sequence[float]]
    notes: Mapping[str, Any] = field(default_factory=dict)


def _parsed(file: _ProfileFile) -> Profile:
    if file.format != FORMAT:
        raise ValueError(f"its format is {file.format}, this version reads {FORMAT}")
    made_for = parse_calibrated_for(
        {"model": file.model, "scheduler": file.scheduler, "num_steps": file.num_steps}
    )
    assert made_for is not None
    steps = file.num_steps
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"num_steps is {steps}; it must be from 1 to {MOST_STEPS}")
    if len(file.sensitivity) != steps or not all(0 < x < LARGEST_NUMBER for x in file.sensitivity):
        raise ValueError(f"sensitivity is not {steps} positive numbers")
    if not file.span_grams:
        raise ValueError("span_grams is empty; it must have the inner products of each span")
    return Profile(
        model=file.model,
        scheduler=file.scheduler,
        num_steps=steps,
        gram=_gram("gram", file.gram, steps),
        span_grams={
            name: _gram(f"span_grams.{name}", upper, steps)
            for name, upper in file.span_grams.items()
        },
        sensitivity=np.asarray(file.sensitivity, dtype=np.float64),
        moreg_hyp=_moreg_hyp(file.moreg_hyp),
        notes=file.notes,
    )


def forecast_error(
    gram: Array, span_grams: Mapping[str, Array], order: int, history: Sequence[int], step: int
) -> float:
    """Return the mean over `span_grams` of the forecast error ||R - F|| / ||F||.

    Args:
        gram: inner products to which F is fitted, float64 [steps, steps].
        span_grams: inner products of each span, float64 [steps, steps].
        order: order of the forecast F, 0 to 2.
        history: computed steps before `step`, the newest first.
        step: the step, counted from 1, whose residual is R.
    """
    known = [s - 1 for s in history[: order + 1]]
    coefficients = fit(gram, known, step - 1)
    # These rows count: the steps that F combines, and `step`.
    inside = np.ix_([*known, step - 1], [*known, step - 1])
    forecast, error = np.append(coefficients, 0.0), np.append(-coefficients, 1.0)
    ratios = []
    for products in (whole[inside] for whole in span_grams.values()):
        ratios.append(
            math.sqrt(max(0.0, error @ products @ error) / (forecast @ products @ forecast))
        )
    return float(np.mean(ratios))


@lru_cache(maxsize=8)
def _plan(profile: Profile, order: int) -> Plan:
    return Plan(profile.gram, profile.sensitivity, order)


def _moreg_hyp(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f"moreg_hyp has {len(values)} numbers, expected (a, b, d)")
    a, b, d = (float(value) for value in values)
    if not (a > 0 and b >= 0 and d > 0):
        raise ValueError(f"moreg_hyp is {values}, expected a > 0, b >= 0, d > 0")
    return a, b, d


def _upper(matrix: Array) -> list[float]:
    # Nine digits: squared forecast errors are about 1e-5 of the squared residuals.
    return [float(f"{value:.9g}") for value in matrix[np.triu_indices(len(matrix))]]


def _gram(name: str, upper: Sequence[float], size: int) -> Array:
    """Return the inner products `[size, size]` of which `upper` is the upper triangle."""
    if len(upper) != size * (size + 1) // 2:
        raise ValueError(
            f"{name} has {len(upper)} numbers, expected {size * (size + 1) // 2} for {size} steps"
        )
    matrix = np.zeros((size, size))
    rows, columns = np.triu_indices(size)
    matrix[rows, columns] = matrix[columns, rows] = upper
    diagonal = np.diag(matrix)
    if not (diagonal > 0).all() or not (np.abs(matrix) < LARGEST_NUMBER).all():
        raise ValueError(f"{name} has a step without a positive inner product, or a huge one")
    # Inner products have no negative eigenvalue. Nine digits change one by half a unit of the last
    # digit of the largest entry for each row, at most; 20 times that is allowed.
    rounding = 1e-8 * size * diagonal.max()
    try:
        np.linalg.cholesky(matrix + rounding * np.eye(size))
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} is not positive semidefinite, so it has the inner products of no residuals"
        ) from None
    return matrix
