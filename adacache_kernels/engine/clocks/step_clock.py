"""Find generation, step and branch of every forward call by the evidence that comes with it.

docs/development/evidence.md has the numbered rules.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..cache_context import NamedCall
from ..evidence.call_evidence import CallEvidence
from ..evidence.schedule_place import SchedulePlace, is_schedule
from ..reports import evidence_messages as messages
from .clock import UNKNOWN_STEPS, Call, Reason
from .generation_track import GenerationTrack
from .place import Kind, Place
from .scheduler_watch import SchedulerWatch

MOST_GENERATIONS = 8
"""Generations that one model holds at the same time. The one with the oldest call is dropped."""
STALE_CALLS = 64
"""Calls of other generations after which a generation is dropped: 32 steps with guidance."""
MOST_REJECTED = 16


class StepClock:
    """Assigns a generation, a step and a branch to every call of the models of one `patch`.

    Args:
        num_steps: the steps that the user has given; None if none.
        calls_per_step: the calls in a step that the user has given; None if none.
        watch: watches the scheduler of the pipeline; None on a bare model.
        needs_steps: a setting that needs the number of steps before the first call; "" if none.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        calls_per_step: int | None = None,
        watch: SchedulerWatch | None = None,
        needs_steps: str = "",
    ) -> None:
        self.given_steps = num_steps
        self.calls_per_step = calls_per_step
        self.watch = watch
        self._needs_steps = needs_steps
        self._tracks: dict[Hashable, GenerationTrack] = {}
        self._rejected: dict[int, StorageWeakRef] = {}
        self._accepted: dict[int, StorageWeakRef] = {}
        self._calls = 0
        self._lock = threading.RLock()
        self._notices: list[Reason] = []

    @property
    def num_steps(self) -> int:
        """Return the steps of a generation as far as they are known before its first call."""
        if self.watch is not None:
            return 0
        return self.given_steps or UNKNOWN_STEPS

    def next_call(self, evidence: CallEvidence) -> tuple[GenerationTrack, Call]:
        """Return generation, step and branch of the forward call that begins now."""
        with self._lock:
            self._calls += 1
            if self.watch is not None:
                self.watch.follow()
            place, track = self._locate(evidence)
            track.last_call = self._calls
            self._note_call(place, evidence)
            call = track.next_call(place, evidence)
            self._drop_stale()
            return track, call

    def forget_call(self, track: GenerationTrack, branch: str) -> None:
        """Forget a call that failed: it may be made again in the same step."""
        with self._lock:
            track.forget_call(branch)

    def take_notices(self) -> list[Reason]:
        """Return what the user should know of generations that ended since the last call."""
        with self._lock:
            notices, self._notices = self._notices, []
            return notices

    def restart(self) -> None:
        """Forget all generations: the next call begins one."""
        with self._lock:
            for track in self._tracks.values():
                track.is_over = True
            self._tracks.clear()
            if self.watch is not None:
                self.watch.restart()

    def detach(self) -> None:
        """Restore the methods of the scheduler."""
        if self.watch is not None:
            self.watch.detach()

    def _locate(self, evidence: CallEvidence) -> tuple[Place, GenerationTrack]:
        for place in self._places(evidence):
            track = self._tracks.get(place.key)
            if track is not None and track.can_continue:
                if place.schedule is not None and not place.may_skip and track.skips(place):
                    self._reject(place.schedule)
                    continue
                if place.kind is Kind.WATCHED and not track.agrees(evidence, place.position):
                    continue
                if track.continues(place, evidence):
                    return place, track
            return place, self._begin(place)
        raise AssertionError("the last place is always possible")

    def _places(self, evidence: CallEvidence) -> Iterator[Place]:
        """Yield the places that the evidence allows, the strongest evidence first."""
        named = evidence.named
        own = None if named is None or named.generation is None else ("named", named.generation)
        thread = own or ("thread", evidence.thread)
        place = evidence.place
        if place is not None and not self._is_schedule(place, evidence.timestep):
            place = None
        if named is not None and named.step_index is not None:
            yield self._indexed(own, named, place, evidence)
        elif place is not None:
            yield self._in_schedule(own, place)
        if own is None and self._is_watched(evidence):
            yield self._by_scheduler()
        num_steps = self.given_steps or UNKNOWN_STEPS
        if evidence.time is not None:
            yield Place(Kind.TIMED, thread, evidence.time, num_steps)
        yield Place(Kind.COUNTED, (thread, "counted"), None, num_steps)

    def _indexed(
        self,
        own: Hashable,
        named: NamedCall,
        in_schedule: SchedulePlace | None,
        evidence: CallEvidence,
    ) -> Place:
        """Return the place that `cache_context` gives; the schedule tells generations apart."""
        index = named.step_index or 0
        num_steps = named.num_inference_steps or self.given_steps or UNKNOWN_STEPS
        left = num_steps if num_steps == UNKNOWN_STEPS else max(1, num_steps - index)
        key: Hashable = ("indexed", evidence.thread)
        scheduler, guidance = None, None
        if self.watch is not None and self._is_watched(evidence):
            scheduler, guidance = self.watch.scheduler, self.watch.has_guidance
        if in_schedule is not None:
            found = self._in_schedule(own, in_schedule)
            key, scheduler, guidance = found.key, found.scheduler, found.has_guidance
        return Place(
            Kind.INDEXED,
            own or key,
            index,
            left,
            None if in_schedule is None else in_schedule.storage,
            scheduler,
            guidance,
            may_skip=True,
        )

    def _in_schedule(self, own: Hashable, place: SchedulePlace) -> Place:
        key = own or ("schedule", place.storage.cdata, place.version)
        left = place.length - place.index
        scheduler, guidance, stored = None, None, None
        watch = self.watch
        if watch is not None and watch.is_place_of(place):
            scheduler, guidance = watch.scheduler, watch.has_guidance
            stored = watch.stored_num_steps()
        # A loop may end before its schedule does: sigmas have one more element than steps.
        given = stored or (self.given_steps if self.given_steps == left - 1 else None)
        num_steps = min(given or left, left)
        return Place(Kind.INDEXED, key, place.index, num_steps, place.storage, scheduler, guidance)

    def _by_scheduler(self) -> Place:
        watch = self.watch
        assert watch is not None
        return Place(
            Kind.WATCHED,
            ("scheduler", watch.generation),
            watch.steps_done,
            watch.planned_steps,
            scheduler=watch.scheduler,
            has_guidance=watch.has_guidance,
        )

    def _is_watched(self, evidence: CallEvidence) -> bool:
        watch = self.watch
        if watch is None or watch.thread != evidence.thread:
            return False
        return watch.is_under_way and not watch.is_contradicted

    def _is_schedule(self, place: SchedulePlace, timestep: object) -> bool:
        if place.storage.cdata in self._accepted:
            return True
        if place.storage.cdata in self._rejected:
            return False
        assert isinstance(timestep, Tensor)
        if not is_schedule(timestep):
            self._reject(place.storage)
            return False
        _remember(self._accepted, place.storage)
        return True

    def _reject(self, storage: StorageWeakRef) -> None:
        self._accepted.pop(storage.cdata, None)
        _remember(self._rejected, storage)

    def _note_call(self, place: Place, evidence: CallEvidence) -> None:
        watch = self.watch
        if watch is not None and watch.thread == evidence.thread:
            watch.note_call(is_own=place.scheduler is not None)

    def _begin(self, place: Place) -> GenerationTrack:
        track = GenerationTrack(place, self.calls_per_step)
        track.open_reason = self._reason_of(place)
        before = self._tracks.pop(place.key, None)
        if before is not None:
            self._end(before)
        self._tracks[place.key] = track
        return track

    def _reason_of(self, place: Place) -> Reason | None:
        """Return the reason why no call of a generation can be reused; None if there is none."""
        if self._needs_steps and place.num_steps == UNKNOWN_STEPS:
            return Reason("needs steps", messages.needs_steps(self._needs_steps))
        if place.kind is not Kind.COUNTED or self.given_steps is not None:
            return None
        text = messages.LOST_STEPS if self.watch is not None else messages.NO_EVIDENCE
        return Reason("lost steps", text)

    def _end(self, track: GenerationTrack) -> None:
        """End a generation, because another one begins at its place."""
        track.is_over = True
        if track.is_repeated:
            self._notices.append(Reason("same timestep", messages.SAME_TIMESTEP))
        elif track.kind in (Kind.TIMED, Kind.COUNTED) and track.step < track.num_steps:
            text = messages.ended_early(track.num_steps, track.step)
            self._notices.append(Reason("number of steps", text))

    def _drop_stale(self) -> None:
        for key, track in list(self._tracks.items()):
            is_stale = self._calls - track.last_call > STALE_CALLS
            if is_stale or not track.can_continue:
                track.is_over = True
                del self._tracks[key]
        if len(self._tracks) > MOST_GENERATIONS:
            oldest = min(self._tracks, key=lambda key: self._tracks[key].last_call)
            self._tracks.pop(oldest).is_over = True


def _remember(storages: dict[int, StorageWeakRef], storage: StorageWeakRef) -> None:
    storages[storage.cdata] = storage
    while len(storages) > MOST_REJECTED:
        del storages[next(iter(storages))]
