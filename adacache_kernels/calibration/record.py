"""Full generations, recorded: what every schedule would miss is known from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..api.patch import patch, summary, unpatch
from ..api.target import attached_engine
from ..schedule.calibrated_for import CalibratedFor, identity
from ..schedule.presets import moreg_window
from ..schedule.profile import Profile
from .outcomes import StoredOutcome, as_array
from .residual_recorder import ResidualRecorder

Array = NDArray[np.float64]
Case = TypeVar("Case")
Progress = Callable[[str, int, int], None]

# Elements of a residual: their inner products are right to 1 / 256 of what two residuals differ by.
SAMPLE = 65536
FEWEST_STEPS = 5


@dataclass(frozen=True, eq=False)
class Recorded:
    """One case.

    Args:
        outcome: what is kept of what `generate` gave.
        gram: [steps, steps], inner products of the residuals, scaled to a trace of the steps.
        span_grams: the same for each residual that is kept.
        motion: motion score at each step of the residual of the last block list.
        distances: [step, later step] of the metric residual, not divided by the steps between;
            None where a codebook is not asked for.
        metric_motion: its motion score at each step.
    """

    outcome: StoredOutcome
    gram: Array
    span_grams: Mapping[str, Array]
    motion: list[float]
    distances: Array | None
    metric_motion: list[float]


@dataclass(frozen=True, eq=False)
class CalibrationRecording:
    """All cases, in full, of one model, scheduler and number of steps."""

    made_for: CalibratedFor
    cases: list[Recorded]

    @property
    def num_steps(self) -> int:
        """Of a generation."""
        return self.made_for.num_steps

    def profile(self) -> Profile:
        """The mean of the inner products; every step is as sensitive as any other."""
        lists = self.cases[0].span_grams
        return Profile(
            model=self.made_for.model,
            scheduler=self.made_for.scheduler,
            num_steps=self.num_steps,
            gram=np.mean([case.gram for case in self.cases], axis=0),
            span_grams={
                name: np.mean([case.span_grams[name] for case in self.cases], axis=0)
                for name in lists
            },
            sensitivity=np.ones(self.num_steps),
        )

    def motion(self, scores: Sequence[float]) -> float:
        """Their mean over the window of motion regularisation."""
        first, last = moreg_window(self.num_steps)
        return float(np.mean(scores[first - 1 : last]))


def record(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    settings: Mapping[str, Any],
    tell: Progress,
    accept: Callable[[CalibratedFor, StoredOutcome], None] = lambda made_for, outcome: None,
    *,
    distances: bool = False,
) -> CalibrationRecording:
    """Every case in full.

    `accept` refuses, by raising, what was generated, as soon as it was.

    Raises:
        ValueError: generations too short to reuse anything, or of different numbers of steps;
            outcomes that are not finite.
    """
    found: list[Recorded] = []
    made: list[CalibratedFor] = []
    for case in cases:
        # Rate 1: every step is computed, and the outcome is that of the unpatched pipeline.
        with patched(pipe, {**settings, "codebook": {float("inf"): 1}}):
            engine = attached_engine(pipe)
            engine.recorder = recorder = ResidualRecorder(SAMPLE)
            outcome = as_array(generate(case))
            scheduler = engine.clock.scheduler
            made_by = None if scheduler is None else identity(scheduler)
            made.append(CalibratedFor(identity(engine.model), made_by, summary(pipe).num_steps))
            metric = engine.config.metric
        if not np.isfinite(outcome).all():
            raise ValueError(f"the outcome of {case!r} is not finite")
        _check_steps(made, case)
        kept = StoredOutcome.of(outcome)
        accept(made[-1], kept)
        total, each = recorder.grams()
        scale = made[0].num_steps / np.trace(total)
        found.append(
            Recorded(
                outcome=kept,
                gram=total * scale,
                span_grams={name: gram * scale for name, gram in each.items()},
                motion=recorder.motion,
                distances=recorder.distances(metric) if distances else None,
                metric_motion=recorder.metric_motion if distances else [],
            )
        )
        tell("full generations", len(found), len(cases))
    return CalibrationRecording(made[0], found)


def _check_steps(made: Sequence[CalibratedFor], case: object) -> None:
    first, last = made[0].num_steps, made[-1].num_steps
    if last < FEWEST_STEPS:
        raise ValueError(f"a generation of {last} steps is too short to reuse anything")
    if first != last:
        raise ValueError(
            f"{case!r} took {last} steps and the cases before it {first}; calibrate for one number "
            "of steps"
        )


@contextmanager
def patched(pipe: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """The pipeline patched inside, and unpatched whatever happens."""
    patch(pipe, **settings)
    try:
        yield
    finally:
        unpatch(pipe)


def no_progress(_doing: str, _done: int, _total: int) -> None:
    """Tells nothing."""
