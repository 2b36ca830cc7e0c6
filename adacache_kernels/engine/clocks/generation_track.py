"""One generation as the clock sees it: its present step, and the branches of its calls."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..evidence.call_evidence import CallEvidence
from ..evidence.tensor_identity import storage_of, version_of
from ..evidence.timestep_sequence import TimestepSequence
from ..reports import evidence_messages as messages
from .branches import MOST_BRANCHES, Branch, Branches
from .clock import UNKNOWN_STEPS, Call, Reason
from .place import Kind, Place


class GenerationTrack:
    """The steps and branches of one generation.

    Args:
        place: the place of its first call.
        calls_per_step: the calls in a step that the user has given; None if none.
    """

    def __init__(self, place: Place, calls_per_step: int | None) -> None:
        self.key: Hashable = place.key
        self.kind = place.kind
        self.num_steps = place.num_steps
        self.scheduler: Any = place.scheduler
        self.has_guidance = place.has_guidance
        self.step = 0
        """The present step, counted from 1; 0 before the first."""
        self.is_over = False
        """True if another generation has taken the place of this one."""
        self.last_call = 0
        """The number of the model's last call that belonged to this generation."""
        self.is_repeated = False
        """True if the first step came again, before there was another one."""
        self.open_reason: Reason | None = None
        """The reason why no call of this generation can be reused; None if there is none."""
        self._has_failed = False
        self._calls_per_step = calls_per_step
        self._schedule: StorageWeakRef | None = place.schedule
        self._position: float | None = None
        self._direction = 1
        self._times = TimestepSequence()
        self._branches = Branches()
        self._seen: list[str] = []
        self._timestep: tuple[StorageWeakRef, int, int] | None = None
        if place.position and place.schedule and place.num_steps == 1 and not place.may_skip:
            # The first call has the last element of a schedule: the loop runs backwards.
            self._direction, self.num_steps = -1, int(place.position) + 1

    @property
    def can_continue(self) -> bool:
        """Return False if no call can belong to this generation any more."""
        is_gone = self._schedule is not None and self._schedule.expired()
        return not (self.is_over or is_gone)

    def continues(self, place: Place, evidence: CallEvidence) -> bool:
        """Return True if a call at this place belongs to this generation, and begins no other."""
        has_gone_on = place.position != self._position
        if place.kind is not self.kind or (self._has_failed and has_gone_on):
            # A step whose call failed has no result, so no later step can follow.
            return False
        if place.kind is Kind.COUNTED:
            is_complete = self.step >= self.num_steps > 0
            return not (is_complete and self._is_new_step(place, evidence))
        if place.kind is Kind.TIMED:
            assert place.position is not None
            self.is_repeated = self._repeats_first(evidence)
            return not (self.is_repeated or self._times.begins_another(place.position))
        assert place.position is not None
        return self._position is None or self._strides_to(place) >= 0

    def skips(self, place: Place) -> bool:
        """Return True if the step before this place had no call."""
        return self._position is not None and self._strides_to(place) > 1

    def agrees(self, evidence: CallEvidence, position: float | None) -> bool:
        """Return False if the timestep of a call contradicts its position in this generation."""
        time = evidence.time
        if time is None or not evidence.has_one_time or self._times.now is None:
            return True
        if position == self._position:
            return time == self._times.now
        return not self._times.turns_back(time)

    def next_call(self, place: Place, evidence: CallEvidence) -> Call:
        """Return step and branch of a call that belongs to this generation."""
        self._has_failed = False
        if self._is_new_step(place, evidence):
            self._begin_step(place, evidence)
        self._timestep = _identity_of(evidence.timestep)
        branch, reason, notice = self._branch_of(evidence)
        self._seen.append(branch.name)
        return Call(
            self.step,
            branch.name,
            first_in_generation=self.step == 1 and len(self._seen) == 1,
            first_in_step=len(self._seen) == 1,
            near_end=self.num_steps == UNKNOWN_STEPS and self._times.is_near_end,
            conditions=branch.number,
            reason=self._reason_of_step() or reason,
            notice=notice,
        )

    def forget_call(self, branch: str) -> None:
        """Forget a call that failed: it may be made again in the same step."""
        self._has_failed = True
        if branch in self._seen:
            self._seen.remove(branch)
        if self.kind is Kind.COUNTED and self.open_reason is None:
            # Nothing shows whether the next call is the same one again, or begins a generation.
            self.open_reason = Reason("interrupted", messages.INTERRUPTED)

    def _strides_to(self, place: Place) -> float:
        assert place.position is not None and self._position is not None
        return (place.position - self._position) * self._direction

    def _repeats_first(self, evidence: CallEvidence) -> bool:
        """Return True if the first step comes again, before there was another one."""
        if self.step != 1 or evidence.time != self._times.now or self._calls_per_step is not None:
            return False
        context = _context_of(evidence)
        same = self._branches.with_conditions(context, evidence.arguments)
        return any(branch.name in self._seen for branch in same)

    def _is_new_step(self, place: Place, evidence: CallEvidence) -> bool:
        if self.step == 0:
            return True
        is_counted = evidence.named is None and self._calls_per_step is not None
        if is_counted and len(self._seen) >= (self._calls_per_step or 1):
            return True
        if place.kind is not Kind.COUNTED:
            return place.position != self._position
        return not is_counted and self._is_over_by_conditions(evidence)

    def _is_over_by_conditions(self, evidence: CallEvidence) -> bool:
        """Return True if the calls show no step, but this branch had its call already."""
        context = _context_of(evidence)
        same = self._branches.with_conditions(context, evidence.arguments)
        if same:
            return all(branch.name in self._seen for branch in same)
        if context is not None and context in self._seen:
            return True
        # Both calls of guidance get the same timestep tensor; the next step gets another one.
        has_same_timestep = _identity_of(evidence.timestep) == self._timestep is not None
        return self.step > 1 and not has_same_timestep and set(self._seen) == self._branches.names

    def _begin_step(self, place: Place, evidence: CallEvidence) -> None:
        if place.kind is Kind.INDEXED and self._position is not None:
            self.step += int(self._strides_to(place))
        else:
            self.step += 1
        self._position = place.position
        self._seen = []
        if evidence.time is not None and (evidence.has_one_time or place.kind is Kind.TIMED):
            self._times.store(evidence.time)

    def _branch_of(self, evidence: CallEvidence) -> tuple[Branch, Reason | None, Reason | None]:
        """Return the branch of a call, the reason why it must be computed, and a notice."""
        context = _context_of(evidence)
        same = self._branches.with_conditions(context, evidence.arguments)
        branch = next((branch for branch in same if branch.name not in self._seen), None)
        if branch is None and same and not self._has_declared_order(context):
            branch = same[0]
            branch.is_ambiguous = True
        if branch is not None:
            is_ambiguous = branch.is_ambiguous
            return branch, Reason("ambiguous", messages.AMBIGUOUS) if is_ambiguous else None, None
        branch = None if same else self._branches.first_unseen(context, self._seen)
        if branch is not None:
            name = self._branches.change(branch, evidence.arguments)
            return branch, None, Reason("conditions", messages.conditions_changed(name))
        branch = self._branches.add(context, evidence.arguments)
        if len(self._branches) > MOST_BRANCHES:
            return branch, Reason("branches", messages.too_many_branches(MOST_BRANCHES)), None
        return branch, None, None

    def _has_declared_order(self, context: str | None) -> bool:
        return context is None and self._calls_per_step is not None

    def _reason_of_step(self) -> Reason | None:
        if self.open_reason is not None:
            return self.open_reason
        if self.step > self.num_steps > 0:
            return Reason("lost steps", messages.too_many_steps(self.num_steps))
        return None


def _context_of(evidence: CallEvidence) -> str | None:
    return None if evidence.named is None else evidence.named.name


def _identity_of(timestep: object) -> tuple[StorageWeakRef, int, int] | None:
    if not isinstance(timestep, Tensor) or version_of(timestep) < 0:
        return None
    return storage_of(timestep), int(timestep.storage_offset()), version_of(timestep)
