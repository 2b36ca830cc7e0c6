"""A forward call with its step and branch, and the clock of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

UNKNOWN_STEPS = -1
"""The number of steps of a bare model for which the user gave none."""


@dataclass(frozen=True)
class Reason:
    """The reason why a call is computed.

    Args:
        topic: identifies the kind of reason; a model warns once of each.
        text: the text for the user.
    """

    topic: str
    text: str


@dataclass(frozen=True)
class Call:
    """One forward call.

    Args:
        step: the denoising step, counted from 1.
        branch: the name of the guidance branch, or its index in the step ("0", "1").
        first_in_generation: True for the first call of the generation.
        first_in_step: True for the first call of the step.
        near_end: True if this may be one of the last two steps of a generation whose number of
            steps is unknown.
        conditions: a number that changes if the conditions of the branch change.
        reason: the reason why the call is computed and stores nothing; None if it may be reused.
        notice: what the user should know of a call that may be reused later; None if nothing.
    """

    step: int
    branch: str
    first_in_generation: bool
    first_in_step: bool
    near_end: bool = False
    conditions: int = 0
    reason: Reason | None = None
    notice: Reason | None = None


class EngineClock(Protocol):
    """The generation that an engine runs, as far as the engine needs to know it."""

    @property
    def num_steps(self) -> int:
        """Return the steps of the generation; 0 before the first; or `UNKNOWN_STEPS`."""

    @property
    def scheduler(self) -> Any:
        """Return the scheduler of the generation; None if it is not known."""

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown.

        Args:
            with_guidance: the number of calls in a step with classifier-free guidance.
        """
