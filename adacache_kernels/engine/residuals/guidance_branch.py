"""The state of one guidance branch: its spans, the ring of their residuals, and their forecast."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...memory.residual_store import ResidualStore
from ...models import Adapter, BlockRun
from ...options import Metric
from ...schedule import Forecast
from ..ranks.shard import Shard
from .block_stand_ins import After, StandIns
from .interleaved_lists import Video
from .span import NOT_STORED, BlocksByIndex, Comparison, ObserversByList, Span
from .sweeps import Sweeps
from .write_check import WriteCheck


def ring_size(order: int, *, correct: bool) -> int:
    """Return the number of slots in each ring.

    A residual may overwrite the oldest one while it is compared with it. With correction, it needs
    one more slot.

    Args:
        order: order of the forecasts.
        correct: whether computed steps are corrected.
    """
    return order + (2 if correct else 1)


@dataclass(frozen=True)
class ComputedForward:
    """One computed forward call of a branch.

    Args:
        step: counted from 1.
        video: videos and frames of the call.
        ring_index: where its residuals are stored, NOT_STORED if they are not.
        correction: ring indices and coefficients of the residuals that correct its output.
    """

    step: int
    video: Video
    ring_index: int = NOT_STORED
    correction: tuple[tuple[int, float], ...] = ()


class GuidanceBranch:
    """The state of one guidance branch in one generation.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        memory: the residual store.
        index: of the branch, in the order of the calls.
        ring_size: number of slots in each ring.
        forecast: the forecast of residuals.
        correct: whether computed steps are corrected for the errors of the forecasts before them.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        memory: ResidualStore,
        index: int,
        ring_size: int,
        forecast: Forecast,
        *,
        correct: bool = False,
    ) -> None:
        self._spans = tuple(_spans(model, adapter, memory, index))
        self._stored = tuple(span for span in self._spans if span.blocks.has_residual)
        self.sweeps = Sweeps(model, adapter.sweeps)
        self._memory = memory
        self.index = index
        self._forecast = forecast
        self._correct = correct
        self._ring = Ring(ring_size)
        self._forward = ComputedForward(0, (1, 1))
        self.computed_at: int | None = None
        """The computed step whose residuals are stored."""
        self.signature: object = None
        """The signature of the last call."""
        self.reserved_for: object = None
        """The signature for which there are slots."""
        self.shard: Shard | None = None
        """The part of the videos that this rank holds, once the ranks have met."""
        self.check = WriteCheck()
        """The check of the last computed call that was recorded."""
        self.checked_for: object = None
        """The signature of the call whose values were compared."""
        self.completed = False
        """True if the last computed call has stored all residuals."""
        self.corrected = False
        """True if the output of the last computed call was corrected."""
        self.reused_since = False
        """True if a step was reused since the last computed call."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Return the computed steps whose residuals are stored, newest first."""
        return self._ring.steps

    def forget(self) -> None:
        """Mark all stored residuals as outdated."""
        self.computed_at = None
        self._ring.clear()

    def lose(self) -> None:
        """Forget the residuals because their memory is gone, also for the call that is running."""
        self.forget()
        self.reserved_for = None
        forward = self._forward
        self._forward = ComputedForward(forward.step, forward.video, forward.ring_index)
        for span in self._spans:
            span.recording.comparison = None

    def give_every_block(self, attributes: Container[str]) -> None:
        """Let reused steps return an element for every block of these lists."""
        for span in self._spans:
            if any(attribute in attributes for attribute in span.attributes):
                span.give_every_block()

    def drop(self, steps: Sequence[int]) -> None:
        """Forget the residuals of these computed steps."""
        self._ring.drop(steps)

    def holds(self, step: int | None, signature: object) -> bool:
        """Return True if the residuals of computed step `step` are stored, for such inputs."""
        fits = self.computed_at == step and self.signature == signature
        return step is not None and fits and bool(self.steps)

    def computed(
        self,
        step: int,
        observers: ObserversByList,
        shape: Video,
        *,
        recording: bool,
        kept: Container[str] = (),
        measure: tuple[Sequence[int], Metric] | None = None,
    ) -> dict[str, tuple[object, ...]]:
        """Begin a computed call and return its block lists, by attribute of the model.

        Args:
            step: counted from 1.
            observers: by list and index of the block they observe.
            shape: videos and frames.
            recording: whether residuals are stored.
            kept: attributes of block lists of whose input a copy is held, because it is written to.
            measure: frame strides and metric by which the forecast error is measured, if it is.
        """
        self.completed, self.corrected = False, False
        history, indices = self._ring.steps, self._ring.indices
        ring_index = self._ring.claim() if recording else NOT_STORED
        correction = self._correction(step, history, indices, ring_index) if recording else ()
        self._forward = ComputedForward(step, shape, ring_index, correction)
        comparison = None
        if recording and history and measure is not None:
            coefficients = self._forecast.coefficients(history, step)
            comparison = Comparison(indices[: len(coefficients)], coefficients, *measure)
        for span in self._spans:
            keeps = any(attribute in kept for attribute in span.attributes)
            span.begin(ring_index, shape, self.check, comparison, keeps=keeps)
        own = (self._observers_of(span, observers, recording) for span in self._spans)
        return self._whole_lists(map(Span.observed, self._spans, own))

    def end(self) -> None:
        """End a computed call."""
        self.reused_since = False
        if self._forward.ring_index != NOT_STORED and not self.completed:
            self._ring.push(self._forward.step, self._forward.ring_index)
        for span in self._spans:
            span.recording.end()

    def reused(self, step: int) -> dict[str, tuple[object, ...]]:
        """Return the block lists of a reused step, counted from 1, by attribute of the model."""
        self.reused_since = True
        coefficients = self._forecast.coefficients(self.steps, step)
        indices = self._ring.indices[: len(coefficients)]
        self._spans[0].prefetch(indices)
        return self._whole_lists(span.reused(indices, coefficients) for span in self._spans)

    def _observers_of(
        self, span: Span, observers: ObserversByList, recording: bool
    ) -> ObserversByList:
        """Return the observers of the blocks of one span. Only the first sweep is measured."""
        observing = {} if span.blocks.sweep else {n: dict(of) for n, of in observers.items()}
        if recording and span is self._stored[-1]:
            of_last = observing.setdefault(span.blocks.attribute, {})
            index = span.stand_ins.last_index
            of_last[index] = [*of_last.get(index, ()), After(self._complete)]
        return observing

    def _whole_lists(
        self, by_span: Iterable[Mapping[str, BlocksByIndex]]
    ) -> dict[str, tuple[object, ...]]:
        """Return whole lists from the blocks of each span, by list and index."""
        by_sweep: list[dict[str, BlocksByIndex]] = [
            {} for _ in range(1 + max(span.blocks.sweep for span in self._spans))
        ]
        for span, part in zip(self._spans, by_span, strict=True):
            for name, blocks in part.items():
                by_sweep[span.blocks.sweep].setdefault(name, {}).update(blocks)
        lists = self.sweeps.begin(by_sweep)
        return {name: tuple(of[index] for index in sorted(of)) for name, of in lists.items()}

    def recorded(self) -> dict[str, Tensor]:
        """Return each list's residual of the video, from the last computed call, `[B, F, S, C]`."""
        index = self._forward.ring_index
        return {
            span.blocks.name: self._memory.slots.read(span.key(0, index), span.view(0))
            for span in self._stored
        }

    def compared(self) -> list[Tensor]:
        """Return the sums over each list's residual and forecast in the last computed call.

        The result is empty if there was no forecast (in the first step), if a list did not run to
        its end, or if a write into a stream was found.
        """
        recordings = [span.recording for span in self._stored]
        sums = [recording.sums for recording in recordings if recording.sums is not None]
        return sums if len(sums) == len(recordings) and not self.check.found else []

    def _complete(self, run: BlockRun) -> None:
        """Note that all residuals are stored, and correct what leaves the last list."""
        self._ring.push(self._forward.step, self._forward.ring_index)
        self.completed = True
        if self._forward.correction and not self.check.found:
            self._correct_output(run)

    def _correction(
        self, step: int, history: Sequence[int], indices: Sequence[int], ring_index: int
    ) -> tuple[tuple[int, float], ...]:
        """Return -c * a_i for each stored residual, then c for the new one at `ring_index`."""
        if not (self._correct and self.reused_since and history):
            return ()
        factor = self._forecast.correction(history, step)
        coefficients = self._forecast.coefficients(history, step)
        of_forecast = zip(indices, (-factor * a for a in coefficients), strict=False)
        return (*of_forecast, (ring_index, factor))

    def _correct_output(self, run: BlockRun) -> None:
        """Replace x_out by x_out + c * (R - sum_i a_i R_i), for all lists in the last one's layout.

        A hook of the block may hold its output, so the sums are added to a copy.
        """
        last = self._stored[-1]
        run.output = last.copied(run.output)
        indices, coefficients = zip(*self._forward.correction, strict=True)
        for span in self._stored:
            for stream, x in enumerate(last.streams_of(run.output, span)):
                if x is not None:
                    span.add_to(x, x, last.blocks, stream, indices, coefficients)
        self.corrected = True


def _spans(
    model: nn.Module, adapter: Adapter, memory: ResidualStore, branch: int
) -> Iterator[Span]:
    first_list = None
    for blocks in adapter.lists:
        modules = blocks.modules(model)
        if blocks.interleaved_with_next:
            first_list = StandIns(blocks, modules)
        else:
            yield Span(blocks, modules, memory, branch, first_list)
            first_list = None


class Ring:
    """The slots of one span for the last computed steps, written one after another.

    Args:
        size: number of slots.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._written: list[tuple[int, int]] = []

    @property
    def steps(self) -> tuple[int, ...]:
        """Return the computed steps that are stored, newest first."""
        return tuple(step for step, _ in self._written)

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the ring index of each of these steps."""
        return tuple(index for _, index in self._written)

    def claim(self) -> int:
        """Return a ring index to write to; if none is free, the oldest step loses its slot."""
        self._written = self._written[: self._size - 1]
        return min(set(range(self._size)) - set(self.indices))

    def push(self, step: int, index: int) -> None:
        """Note that the slot at `index` holds the residual of `step`."""
        self._written = [(step, index), *(w for w in self._written if w[1] != index)]

    def drop(self, steps: Sequence[int]) -> None:
        """Forget these steps."""
        self._written = [written for written in self._written if written[0] not in steps]

    def clear(self) -> None:
        """Forget all steps."""
        self._written = []
