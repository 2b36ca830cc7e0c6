"""One branch of guidance: its spans, the ring of their residuals, and the forecast from it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from ...memory.residual_store import ResidualStore
from ...models import Adapter, BlockRun
from ...options import Metric
from ...schedule import Forecast
from .block_stand_ins import After, Observer
from .interleaved_lists import InterleavedList
from .span import Comparison, Span

NEW = -1
"""Stands for the place of the residual that is about to be stored."""


def ring_places(order: int, *, correct: bool) -> int:
    """Places of each ring, for forecasts of this order.

    A residual may go over the oldest one as it is compared with it, in one pass. One that is
    corrected needs a place beside the others.
    """
    return order + (2 if correct else 1)


class GuidanceBranch:
    """State of one branch in one generation.

    Args:
        model: the transformer.
        adapter: what is known of it.
        memory: where residuals are kept.
        index: of the branch, in the order in which they come.
        places: of the ring.
        forecast: how residuals are forecast.
        correct: whether computed steps make up for what forecasts missed.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        memory: ResidualStore,
        index: int,
        places: int,
        forecast: Forecast,
        *,
        correct: bool = False,
    ) -> None:
        self._spans = tuple(_spans(model, adapter, memory, index))
        self._kept = tuple(span for span in self._spans if span.blocks.has_residual)
        self._memory = memory
        self.index = index
        self._forecast = forecast
        self._correct = correct
        self._ring = Ring(places)
        self.computed_at: int | None = None
        self.signature: object = None
        self.reserved_for: object = None
        """The signature that there are slots for."""
        self.completed = self.corrected = False
        self.reused_since = False
        self._correction: tuple[tuple[int, float], ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """Computed steps whose residuals are held, newest first."""
        return self._ring.steps

    def forget(self) -> None:
        """Nothing that is stored holds any longer."""
        self.computed_at = None
        self._ring.clear()

    def lose(self) -> None:
        """Nothing is stored any longer, nor is there anything that a forward which has begun could
        be compared with."""
        self.forget()
        self.reserved_for = None
        self._correction = ()
        for span in self._spans:
            span.compare_with_nothing()

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
        measure: tuple[Sequence[int], Metric] | None = None,
    ) -> dict[str, tuple[object, ...]]:
        """The block lists of a computed step.

        Args:
            step: counted from 1.
            observers: by list and index of the block that they watch.
            shape: videos and frames.
            recording: whether residuals are stored.
            measure: frame strides and metric by which the forecast's error is measured, if it is.
        """
        self._step, self._shape = step, shape
        self.completed, self.corrected = False, False
        comparison = None
        history, places = self._ring.steps, self._ring.places
        if recording and history and measure is not None:
            coefficients = self._forecast.coefficients(history, step)
            comparison = Comparison(places[: len(coefficients)], coefficients, *measure)
        self._correction = self._missed(step) if recording else ()
        self._place = self._ring.claim() if recording else -1
        watching = {name: dict(of_list) for name, of_list in observers.items()}
        if recording:
            last = self._kept[-1]
            of_last = watching.setdefault(last.blocks.attribute, {})
            of_last[last.last_index] = [*of_last.get(last.last_index, ()), After(self._complete)]
        for span in self._spans:
            span.begin(self._place, shape, comparison)
        return _put_together(span.observed(watching, recording) for span in self._spans)

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

    def reused(self, step: int, given: Container[int]) -> dict[str, tuple[object, ...]]:
        """The block lists of a reused step, which write to none of the storages `given`."""
        self.reused_since = True
        coefficients = self._forecast.coefficients(self.steps, step)
        places = self._ring.places[: len(coefficients)]
        self._spans[0].prefetch(places)
        return _put_together(span.reused(places, coefficients, given) for span in self._spans)

    def _complete(self, run: BlockRun) -> None:
        """All residuals are stored: correct what leaves the last list."""
        self._ring.push(self._step, self._place)
        self.completed = True
        if self._correction and not self.written_in_place:
            self._correct_output(run)

    def recorded(self) -> dict[str, Tensor]:
        """The video's residual of each list in the last computed forward, as [B, F, S, C]."""
        return {
            span.blocks.name: self._memory.slots.read(span.key(0, self._place), span.view(0))
            for span in self._kept
        }

    def compared(self) -> list[Tensor]:
        """Sums over each list's residual and forecast in the last computed forward.

        None where there was no forecast (the first step), or where a list did not run to its end.
        """
        sums = [span.sums for span in self._kept if span.sums is not None]
        everywhere = len(sums) == len(self._kept) and not self.written_in_place
        return sums if everywhere else []

    def _missed(self, step: int) -> tuple[tuple[int, float], ...]:
        """What to add of the stored residuals: -c * a_i by place; then of the new one, c."""
        history = self._ring.steps
        if not (self._correct and self.reused_since and history):
            return ()
        factor = self._forecast.correction(history, step)
        coefficients = self._forecast.coefficients(history, step)
        of_forecast = zip(self._ring.places, (-factor * a for a in coefficients), strict=False)
        return (*of_forecast, (NEW, factor))

    def _correct_output(self, run: BlockRun) -> None:
        """x_out += c * (R - sum_i a_i R_i), for all lists in the last one's layout."""
        last = self._kept[-1]
        places = [self._place if place == NEW else place for place, _ in self._correction]
        for span in self._kept:
            for index, x in enumerate(last.leaving(run.output, span)):
                if x is None:
                    continue
                if span.blocks.layout is not last.blocks.layout:
                    x = last.blocks.split(x, index, self._shape)
                keys = [span.key(index, place) for place in places]
                coefficients = [a for _, a in self._correction]
                self._memory.slots.add(x, keys, coefficients, span.view(index))
        self.corrected = True


def _put_together(
    parts: Iterable[Mapping[str, Mapping[int, object]]],
) -> dict[str, tuple[object, ...]]:
    """Whole lists, from what stands for blocks by list and index."""
    lists: dict[str, dict[int, object]] = {}
    for part in parts:
        for name, blocks in part.items():
            lists.setdefault(name, {}).update(blocks)
    return {name: tuple(of[index] for index in sorted(of)) for name, of in lists.items()}


def _spans(
    model: nn.Module, adapter: Adapter, memory: ResidualStore, branch: int
) -> Iterator[Span]:
    leading = None
    for blocks in adapter.lists:
        modules = blocks.modules(model)
        if blocks.interleaved_with_next:
            leading = InterleavedList(blocks, modules)
        else:
            yield Span(blocks, modules, memory, branch, leading)
            leading = None


class Ring:
    """`depth` places, written in turn; newest first.

    Args:
        depth: number of places.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._written: list[tuple[int, int]] = []

    @property
    def steps(self) -> tuple[int, ...]:
        """Computed steps that are held."""
        return tuple(step for step, _ in self._written)

    @property
    def places(self) -> tuple[int, ...]:
        """Where they are held."""
        return tuple(place for _, place in self._written)

    def claim(self) -> int:
        """A place to write to; where all are taken, the oldest step is given up."""
        self._written = self._written[: self._depth - 1]
        return min(set(range(self._depth)) - set(self.places))

    def push(self, step: int, place: int) -> None:
        """`place` holds the residual of `step` from now on."""
        self._written = [(step, place), *(w for w in self._written if w[1] != place)]

    def drop(self, steps: Sequence[int]) -> None:
        """These steps are no longer held."""
        self._written = [written for written in self._written if written[0] not in steps]

    def clear(self) -> None:
        """Nothing is held."""
        self._written = []
