"""The arguments of `decide` that are not tensors, and their flat form in the torch op."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor

from .checks import BATCHES, METRICS, check_choice


@dataclass(frozen=True)
class DecideSettings:
    """The constants of the decisions of one generation; the formulas are those of `decide`.

    Args:
        metric: "l1", "l2" or "cosine", the metric of the sums.
        apply_moreg: True to multiply the distance by motion regularization.
        moreg_a: the divisor of the motion.
        moreg_b: the exponent of the motion.
        moreg_d: the divisor of the power.
        mograd_mul: the factor of the motion gradient.
        batch: "any" if the largest distance of the videos decides, "mean" for their mean.

    Raises:
        ValueError: `metric` or `batch` is none of these.
    """

    metric: str = "l1"
    apply_moreg: bool = False
    moreg_a: float = 0.385
    moreg_b: float = 8.0
    moreg_d: float = 1.0
    mograd_mul: float = 10.0
    batch: str = "any"

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        check_choice("batch", self.batch, BATCHES)


class DecideStep(NamedTuple):
    """The values of one decision, as `decide` documents them."""

    step: int
    has_previous: bool = True
    in_window: bool = False
    sequence: int = 0
    clock: Tensor | None = None
    videos: int = 1
    motions: Tensor | None = None


FLAT_SCHEMA = (
    "str metric, bool apply_moreg, float moreg_a, float moreg_b, float moreg_d, float mograd_mul, "
    "str batch, int step, bool has_previous, bool in_window, int sequence, Tensor? clock, "
    "int videos, Tensor(b!)? motions"
)
"""The fields of both classes, in order, as arguments of a torch op."""
_SETTINGS = tuple(field.name for field in fields(DecideSettings))


def flatten(settings: DecideSettings, step: DecideStep) -> tuple[Any, ...]:
    """Return the arguments of `FLAT_SCHEMA`."""
    # No cache: torch.compile traces this function, and warns of a cached one.
    return (*[getattr(settings, name) for name in _SETTINGS], *step)


def unflatten(arguments: Sequence[Any]) -> tuple[DecideSettings, DecideStep]:
    """Return the settings and the step of arguments of `FLAT_SCHEMA`."""
    count = len(_SETTINGS)
    return _settings(*arguments[:count]), DecideStep(*arguments[count:])


@functools.lru_cache(maxsize=128)
def _settings(*values: Any) -> DecideSettings:
    return DecideSettings(*values)
