"""One branch of guidance: its spans, the ring of their residuals, and the forecast from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from . import ops
from .blocks import Observer
from .models import Adapter, BlockRun
from .policies import Forecast
from .ring import Ring
from .slots import Slots
from .spans import Span
from .types import Metric


class Completion:
    """Watches the last block of the last list: calls the branch when all residuals are there."""

    taps: Sequence[str] = ()

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    def before(self, run: BlockRun) -> None:
        """Nothing is needed from before the block."""

    def after(self, run: BlockRun) -> None:
        self._branch.complete(run)


class Branch:
    """State of one branch in one generation.

    Args:
        model: the transformer.
        adapter: what is known of it.
        slots: where residuals are kept.
        name: of the branch.
        forecast: how residuals are forecast.
        correct: whether computed steps make up for what forecasts missed.
        compare: whether the forecast is compared with what a computed step finds.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        slots: Slots,
        name: str,
        forecast: Forecast,
        *,
        correct: bool = False,
        compare: bool = False,
    ) -> None:
        self._spans = tuple(
            Span(blocks, getattr(model, blocks.attribute), slots, name) for blocks in adapter.lists
        )
        self._slots = slots
        self._forecast = forecast
        self._correct = correct
        self._compare = compare
        # The forecast of a step is kept beside its residual until the two have been compared.
        self._ring = Ring(forecast.order + (2 if correct or compare else 1))
        self.computed_at: int | None = None
        self.signature: object = None
        self.completed = self.corrected = False
        self.reused_since = False
        self._target: int | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """Computed steps whose residuals are held, newest first."""
        return self._ring.steps

    @property
    def device(self) -> torch.device:
        """Of the residuals that were stored last."""
        return self._spans[0].residuals(self._place)[0].device

    def forget(self) -> None:
        """Nothing that is stored holds any longer."""
        self.computed_at = None
        self._ring.clear()

    def drop(self, steps: Sequence[int]) -> None:
        """Residuals of these computed steps are not to be used."""
        self._ring.drop(steps)

    def holds(self, step: int | None, signature: object) -> bool:
        """Whether there are residuals as of computed step `step`, for inputs like these."""
        fits = self.computed_at == step and self.signature == signature
        return step is not None and fits and bool(self.steps)

    def computed(
        self,
        step: int,
        observers: Mapping[str, Mapping[int, Sequence[Observer]]],
        shape: tuple[int, int],
        *,
        recording: bool,
    ) -> dict[str, tuple[object, ...]]:
        """The block lists of a computed step.

        Args:
            step: counted from 1.
            observers: by list and index of the block that they watch.
            shape: videos and frames.
            recording: whether residuals are stored.
        """
        self._step, self._shape = step, shape
        self.completed, self.corrected, self._target = False, False, None
        self._place = self._ring.claim() if recording else -1
        lists = {}
        for span in self._spans:
            span.begin(self._place)
            name = span.blocks.attribute
            watching = {index: list(who) for index, who in observers.get(name, {}).items()}
            if recording and span is self._spans[-1]:
                watching.setdefault(span.last_index, []).append(Completion(self))
            lists[name] = span.observed(watching, recording)
        return lists

    def end(self) -> None:
        """The computed forward is over."""
        self.reused_since = False
        if self._place >= 0 and not self.completed:
            self._ring.push(self._step, self._place)
        for span in self._spans:
            span.end()

    @property
    def written_in_place(self) -> bool:
        """Whether a block of the last computed forward wrote into its input."""
        return any(span.written_in_place for span in self._spans)

    def reused(self, step: int) -> dict[str, tuple[object, ...]]:
        """The block lists of a reused step."""
        self.reused_since = True
        coefficients = self._forecast.coefficients(self.steps, step)
        places = self._ring.places[: len(coefficients)]
        return {span.blocks.attribute: span.reused(places, coefficients) for span in self._spans}

    def complete(self, run: BlockRun) -> None:
        """All residuals are stored: compare them with the forecast, correct what leaves."""
        history, places = self._ring.steps, self._ring.places
        self._ring.push(self._step, self._place)
        self.completed = True
        if self.written_in_place or not history or not (self._correct or self._compare):
            return
        coefficients = self._forecast.coefficients(history, self._step)
        target = self._ring.spare(self._forecast.order + 1)
        for span in self._spans:
            span.forecast_into(target, places[: len(coefficients)], coefficients)
        self._ring.release(target)
        if self._correct and self.reused_since:
            self._add_correction(run, target, self._forecast.correction(history, self._step))
        self._target = target

    def recorded(self) -> dict[str, Tensor]:
        """The video's residual of each list in the last computed forward, as [B, F, S, C]."""
        return {
            span.blocks.attribute: span.blocks.layout.split(
                span.residuals(self._place)[0], *self._shape
            )
            for span in self._spans
        }

    def compared(self, strides: Sequence[int], metric: Metric) -> list[Tensor]:
        """Sums over the residual and its forecast, one row a span, of the last computed forward.

        The forecast is overwritten. Without one (the first step) there are no sums.
        """
        target, self._target = self._target, None
        if target is None:
            return []
        return [self._compared(span, target, strides, metric) for span in self._spans]

    def _compared(self, span: Span, target: int, strides: Sequence[int], metric: Metric) -> Tensor:
        split = span.blocks.layout.split
        forecast, residual = (
            split(span.residuals(place)[0], *self._shape) for place in (target, self._place)
        )
        return ops.distance_update(forecast, residual, strides=strides, metric=metric)

    def _add_correction(self, run: BlockRun, target: int, factor: float) -> None:
        """x_out += factor * (R - forecast), the residuals of all lists in the last one's layout."""
        last = self._spans[-1].blocks
        leaving = {stream.parameter: stream.read(run.output) for stream in last.streams}
        for span in self._spans:
            for index, stream in enumerate(span.blocks.streams):
                x = leaving[stream.parameter]
                pair = [span.residuals(place)[index] for place in (self._place, target)]
                if span.blocks.layout is not last.layout:
                    x = last.layout.split(x, *self._shape)
                    pair = [span.blocks.layout.split(r, *self._shape) for r in pair]
                self._slots.add(x, pair, (factor, -factor))
        self.corrected = True
