"""Full generations, recorded: the forecast error of every schedule follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..api.patch import patch, summary, unpatch
from ..api.target import attached_engine
from ..options import Metric
from ..schedule.calibrated_for import CalibratedFor, identity
from ..schedule.presets import moreg_window
from ..schedule.profile import Profile
from .checkpoint import Checkpoint, Measurement
from .outcomes import Outcome, StoredOutcome, as_array
from .recorded_case import RecordedCase, packed_case, unpacked_case
from .residual_recorder import ResidualRecorder

Array = NDArray[np.float64]
Case = TypeVar("Case")
Progress = Callable[[str, int, int], None]

# Elements that are stored of a residual: inner products of so many are right to 1 / 256 of the
# difference of two residuals.
RESIDUAL_SAMPLE = 65536
FEWEST_STEPS = 5

# Largest squared error of a repeated outcome, as a part of its variance. GPUs repeat sums in other
# orders; another video has a part of about 1.
SAME_OUTCOME = 1e-3
BEGIN_AGAIN = "repeat the request that it is of, or remove the folder to begin again"


@dataclass(frozen=True, eq=False)
class CalibrationRecording:
    """All cases, generated in full with one model, scheduler and number of steps."""

    calibrated_for: CalibratedFor
    cases: list[RecordedCase]

    @property
    def num_steps(self) -> int:
        """Return the number of steps of a generation."""
        return self.calibrated_for.num_steps

    def profile(self) -> Profile:
        """Return a profile with the mean inner products and a sensitivity of 1 at every step."""
        names = self.cases[0].span_grams
        return Profile(
            model=self.calibrated_for.model,
            scheduler=self.calibrated_for.scheduler,
            num_steps=self.num_steps,
            gram=np.mean([case.gram for case in self.cases], axis=0),
            span_grams={
                name: np.mean([case.span_grams[name] for case in self.cases], axis=0)
                for name in names
            },
            sensitivity=np.ones(self.num_steps),
        )

    def mean_motion(self, scores: Sequence[float]) -> float:
        """Return the mean of motion scores, one a step, over the window of MoReg."""
        first, last = moreg_window(self.num_steps)
        return float(np.mean(scores[first - 1 : last]))


@dataclass(frozen=True, eq=False)
class _FullRun:
    calibrated_for: CalibratedFor
    outcome: Outcome
    recorder: ResidualRecorder
    metric: Metric


def record(
    pipe: Any,
    cases: Sequence[Case],
    generate: Callable[[Case], Any],
    settings: Mapping[str, Any],
    progress: Progress,
    checkpoint: Checkpoint,
    accept: Callable[[CalibratedFor, StoredOutcome], None] = lambda calibrated_for, outcome: None,
    *,
    distances: bool = False,
) -> CalibrationRecording:
    """Generate and record every case in full.

    Args:
        pipe: an unpatched pipeline, or a bare model.
        cases: arguments of `generate`.
        generate: from a case to its outcome.
        settings: for `patch`.
        progress: called after each generation.
        checkpoint: stores the measurements. If the first one is stored, its case is generated again
            to show that `generate` is the same.
        accept: called after each generation; raises an error to refuse its outcome.
        distances: also record the distances and motion scores of the metric block.

    Raises:
        ValueError: the generations are too short to reuse anything, or their numbers of steps
            differ; an outcome is not finite; or the checkpoint is of another pipeline.
    """
    recorded: list[RecordedCase] = []
    calibrated_for: CalibratedFor | None = None
    is_compared = checkpoint.is_resumed and checkpoint.work.rank == 0

    def measure(case: Case) -> Measurement:
        run = _run_in_full(pipe, case, generate, settings)
        return packed_case(run.calibrated_for, _recorded_case(run, distances))

    asked = [(f"record of {case!r}", partial(measure, case)) for case in cases]
    for case, found in zip(cases, checkpoint.recall_each(asked), strict=True):
        made_for, now = unpacked_case(found)
        calibrated_for = calibrated_for or made_for
        if is_compared and not recorded:
            _check_same_pipeline(made_for, now, _run_in_full(pipe, case, generate, settings), case)
        _check_steps(calibrated_for.num_steps, made_for.num_steps, case)
        accept(made_for, now.outcome)
        recorded.append(now)
        progress("full generations", len(recorded), len(cases))
    assert calibrated_for is not None
    return CalibrationRecording(calibrated_for, recorded)


def _check_same_pipeline(
    stored_for: CalibratedFor, stored: RecordedCase, run: _FullRun, case: object
) -> None:
    """Check that a generation agrees with the stored one of the same case."""
    if stored_for.num_steps != run.calibrated_for.num_steps:
        raise ValueError(
            f"the checkpoint is of {stored_for.num_steps} steps and {case!r} took "
            f"{run.calibrated_for.num_steps}; {BEGIN_AGAIN}"
        )
    deviation = float(np.var(stored.outcome.values))
    if stored.outcome.squared_error(run.outcome) > SAME_OUTCOME * deviation:
        raise ValueError(
            f"the checkpoint has another outcome of {case!r} than this pipeline; {BEGIN_AGAIN}"
        )


def _run_in_full(
    pipe: Any, case: Case, generate: Callable[[Case], Any], settings: Mapping[str, Any]
) -> _FullRun:
    # Rate 1: every step is computed, and the outcome is that of the unpatched pipeline.
    with patched(pipe, {**settings, "codebook": {float("inf"): 1}}):
        engine = attached_engine(pipe)
        lists = summary(pipe).found
        engine.recorder = recorder = ResidualRecorder(RESIDUAL_SAMPLE)
        outcome = as_array(generate(case))
        if summary(pipe).found != lists:
            # The first step has shown that a list has to be cut, so its residuals do not fit.
            engine.recorder = recorder = ResidualRecorder(RESIDUAL_SAMPLE)
            outcome = as_array(generate(case))
        scheduler = engine.clock.scheduler
        calibrated_for = CalibratedFor(
            identity(engine.model),
            None if scheduler is None else identity(scheduler),
            summary(pipe).num_steps,
        )
        metric = engine.config.metric
    if not np.isfinite(outcome).all():
        raise ValueError(f"the outcome of {case!r} is not finite")
    return _FullRun(calibrated_for, outcome, recorder, metric)


def _recorded_case(run: _FullRun, distances: bool) -> RecordedCase:
    total, by_span = run.recorder.grams()
    scale = run.calibrated_for.num_steps / np.trace(total)
    return RecordedCase(
        outcome=StoredOutcome.of(run.outcome),
        gram=total * scale,
        span_grams={name: gram * scale for name, gram in by_span.items()},
        motion=run.recorder.motion,
        distances=run.recorder.distances(run.metric) if distances else None,
        metric_motion=run.recorder.metric_motion if distances else [],
    )


def _check_steps(first: int, last: int, case: object) -> None:
    if last < FEWEST_STEPS:
        raise ValueError(
            f"a generation of {last} steps is too short to reuse anything; run at least "
            f"{FEWEST_STEPS} steps"
        )
    if first != last:
        raise ValueError(
            f"{case!r} took {last} steps and the cases before it {first}; calibrate for one number "
            "of steps"
        )


@contextmanager
def patched(pipe: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """Patch the pipeline inside of the context, and unpatch it at the end."""
    patch(pipe, **settings)
    try:
        yield
    finally:
        unpatch(pipe)


def no_progress(_doing: str, _done: int, _total: int) -> None:
    """Report nothing."""
