"""Give every generation of a patched model an engine of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..models.block_calls import Parameters
from .base import AdaCacheEngine, AnyEngine
from .cache_context import current_context
from .clocks.clock import Call
from .clocks.generation_track import GenerationTrack
from .clocks.step_clock import StepClock
from .clocks.track_clock import TrackClock
from .evidence.call_evidence import CallEvidence
from .forward_call import Forward, ForwardCall
from .reports.summary import Summary

MakeEngine = Callable[[TrackClock], AnyEngine]


@dataclass
class Seat:
    """An engine, and the generation that it runs.

    Args:
        engine: the engine.
        clock: its clock.
        step: the step of the last call; 0 before the first.
        last_call: the number of the model's last call that this engine ran.
    """

    engine: AnyEngine
    clock: TrackClock
    step: int = 0
    last_call: int = 0

    @property
    def is_free(self) -> bool:
        """Return True if no call can belong to the engine's generation any more."""
        track = self.clock.track
        return track is None or not track.can_continue or track.step >= track.num_steps > 0


class Router:
    """The engines of one patched model: one for each generation that is under way.

    Generations follow each other on one engine, which keeps its memory. Generations that take
    turns, as those of several pipelines or threads, have one each, within the arena's budget.

    Args:
        model: the transformer.
        clock: finds generation, step and branch of every call.
        make: makes an engine from its clock.
    """

    def __init__(self, model: nn.Module, clock: StepClock, make: MakeEngine) -> None:
        self.model = model
        self.clock = clock
        self._make = make
        self._parameters = Parameters(model)
        self._calls = 0
        self._topics: set[str] = set()
        self._seats = [self._new_seat()]
        self._last_of_thread: dict[int, Seat] = {}

    @property
    def engine(self) -> AnyEngine:
        """Return the engine of the last call of this thread, or else of any thread."""
        return self._last_seat().engine

    def forward(self, original: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one forward call of the model, whose own forward is `original`."""
        forward = ForwardCall(original, args, kwargs, self._parameters)
        track, call = self.clock.next_call(CallEvidence.of(current_context(), forward.arguments))
        seat = self._seat_of(track)
        self._calls += 1
        seat.last_call = self._calls
        own = replace(
            call,
            first_in_generation=seat.step == 0,
            first_in_step=seat.step != call.step,
        )
        seat.step = call.step
        self._last_of_thread[threading.get_ident()] = seat
        try:
            output = seat.engine.run(own, forward)
        except BaseException:
            if own.first_in_generation:
                seat.step = 0
            self.clock.forget_call(track, call.branch)
            raise
        for notice in self.clock.take_notices():
            seat.engine.user_warnings.warn(notice.topic, notice.text)
        return output

    def use(self, make: Callable[[TrackClock], AdaCacheEngine], call: Call) -> None:
        """Run generations by other engines from now on.

        Args:
            make: makes them.
            call: the first call of the generation, which was computed without them.
        """
        before = self._last_seat()
        self._make = make
        clock = TrackClock(self.clock)
        clock.track = before.clock.track
        engine = make(clock)
        engine.user_warnings.use_topics(self._topics)
        engine.user_warnings.continue_from(before.engine.user_warnings)
        for seat in self._seats:
            seat.engine.reset()
        seat = Seat(engine, clock, call.step)
        self._seats = [seat]
        self._last_of_thread = {threading.get_ident(): seat}
        engine.join(call)

    def reset(self) -> None:
        """Forget all generations and release their memory."""
        self.clock.restart()
        for seat in self._seats:
            seat.engine.reset()
            seat.clock.track = None
            seat.step = 0
        self._seats = self._seats[:1]
        self._last_of_thread = {}

    def summary(self) -> Summary:
        """Return what happened in the last generation of this thread, or else of any thread."""
        return self.engine.summary()

    def reclaim(self) -> bool:
        """Release the memory of the generation with the oldest call; return False if none has any.

        The generation of the last call keeps its memory.
        """
        others = [seat for seat in self._seats if seat.last_call != self._calls]
        if not others:
            return False
        oldest = min(others, key=lambda seat: seat.last_call)
        self._drop(oldest)
        return True

    def _new_seat(self) -> Seat:
        clock = TrackClock(self.clock)
        engine = self._make(clock)
        engine.user_warnings.use_topics(self._topics)
        return Seat(engine, clock)

    def _last_seat(self) -> Seat:
        seat = self._last_of_thread.get(threading.get_ident())
        if seat is not None and seat in self._seats:
            return seat
        return max(self._seats, key=lambda seat: seat.last_call)

    def _seat_of(self, track: GenerationTrack) -> Seat:
        """Return the seat of a generation; a new generation takes a free one, or a new one."""
        for seat in self._seats:
            if seat.clock.track is track:
                return seat
        free = [seat for seat in self._seats if seat.is_free]
        if not free:
            self._seats.append(self._new_seat())
            free = self._seats[-1:]
        taken = max(free, key=lambda seat: seat.last_call)
        for seat in free:
            if seat is not taken:
                self._drop(seat)
        taken.clock.track, taken.step = track, 0
        return taken

    def _drop(self, seat: Seat) -> None:
        seat.engine.reset()
        self._seats.remove(seat)
        self._last_of_thread = {
            thread: last for thread, last in self._last_of_thread.items() if last is not seat
        }
