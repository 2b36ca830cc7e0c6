"""A calibrated profile: what was learned of one model, scheduler and number of steps."""

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

from . import FittedForecast, Plan
from .calibrated_for import MadeFor
from .forecast import fit

FORMAT = 1
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Inner products of residuals and the sensitivity of the video, from calibration runs.

    Args:
        model: class and config of the transformer.
        scheduler: class and config of the scheduler; None for a bare model.
        num_steps: steps of a generation.
        gram: [steps, steps], inner products of the residuals of any two steps, mean over the runs,
            scaled to a trace of `num_steps`.
        span_grams: the same for each residual that is kept, by its block list.
        moreg_hyp: (a, b, d) of motion regularisation, so that its score is how much harder a video
            of that motion is than the mean.
        sensitivity: [steps], squared error of the video for a squared error of the residuals seen
            at a step; only ratios matter.
        notes: how it was made, for people to read.
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
        """Schedules for a forecast of `order`."""
        return _plan(self, order)

    def forecast(self, order: int) -> FittedForecast:
        """The least-squares forecast."""
        return FittedForecast(order, self.gram)

    def expected_error(self, order: int, history: Sequence[int], step: int) -> float:
        """Mean over the residuals of ||R - F|| / ||F||; `history`, newest first, makes F."""
        return forecast_error(self.gram, self.span_grams, order, history, step)

    def check(
        self, model: Mapping[str, Any], scheduler: Mapping[str, Any] | None, num_steps: int
    ) -> None:
        """Refuse a run that the profile was not made for.

        Raises:
            ValueError: another model, scheduler or number of steps; names what differs.
        """
        self.made_for.check(model, scheduler, num_steps, "the profile", "patch without profile=")

    @property
    def made_for(self) -> MadeFor:
        """Model, scheduler and number of steps."""
        return MadeFor(self.model, self.scheduler, self.num_steps)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, for JSON. Of each matrix the upper triangle, by rows."""
        return {
            "format": FORMAT,
            "model": dict(self.model),
            "scheduler": None if self.scheduler is None else dict(self.scheduler),
            "num_steps": self.num_steps,
            "sensitivity": [float(f"{value:.4g}") for value in self.sensitivity],
            "moreg_hyp": list(self.moreg_hyp),
            "gram": _upper(self.gram),
            "span_grams": {name: _upper(gram) for name, gram in self.span_grams.items()},
            "notes": dict(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` gave.

        Raises:
            ValueError: something is missing, or does not fit the number of steps.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']}, this version reads {FORMAT}")
            num_steps = values["num_steps"]
            sensitivity = np.asarray(values["sensitivity"], dtype=np.float64)
            if sensitivity.shape != (num_steps,) or not (sensitivity > 0).all():
                raise ValueError(f"sensitivity is not {num_steps} positive numbers")
            return cls(
                model=values["model"],
                scheduler=values["scheduler"],
                num_steps=num_steps,
                gram=_symmetric(values["gram"], num_steps),
                span_grams={
                    name: _symmetric(gram, num_steps) for name, gram in values["span_grams"].items()
                },
                sensitivity=sensitivity,
                moreg_hyp=_moreg_hyp(values["moreg_hyp"]),
                notes=values.get("notes", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"this is no profile of adacache_kernels: {error!r}") from error

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file holds no profile; names the file.
        """
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def read_json(path: str | Path) -> Any:
    """What a file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    text = Path(path).read_bytes()
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is no JSON file: {error}") from error


def forecast_error(
    gram: Array, span_grams: Mapping[str, Array], order: int, history: Sequence[int], step: int
) -> float:
    """Mean over `span_grams` of ||R - F|| / ||F||, F fitted to `gram`; `history`, newest first."""
    known = [s - 1 for s in history[: order + 1]]
    coefficients = fit(gram, known, step - 1)
    # Only these rows of a gram count: the steps that F is made of, and the one that it is for.
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
    a, b, d = (float(value) for value in values)
    if not (a > 0 and b >= 0 and d > 0 and math.isfinite(a + b + d)):
        raise ValueError(f"moreg_hyp is {values}, expected a > 0, b >= 0, d > 0")
    return a, b, d


def _upper(matrix: Array) -> list[float]:
    # Neighbouring residuals are parallel to 1e-3 and their forecast errors to 1e-5 of the whole.
    return [float(f"{value:.9g}") for value in matrix[np.triu_indices(len(matrix))]]


def _symmetric(upper: Sequence[float], size: int) -> Array:
    matrix = np.zeros((size, size))
    rows, columns = np.triu_indices(size)
    if len(upper) != len(rows):
        raise ValueError(f"a matrix has {len(upper)} numbers, expected {len(rows)}")
    matrix[rows, columns] = upper
    matrix[columns, rows] = upper
    if not np.isfinite(matrix).all() or not (np.diag(matrix) > 0).all():
        raise ValueError("its inner products are not finite, or not positive for some step")
    return matrix
