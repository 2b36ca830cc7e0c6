"""Count the calls of a bare model whose number of steps is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .clock import Call


class CallClock:
    """The clock of a bare model.

    A step has `calls_per_step` calls; with named contexts, it ends when a name comes again. A
    generation has `num_steps` steps.

    Args:
        num_steps: steps of a generation.
        calls_per_step: calls of a step without named contexts.
    """

    def __init__(self, num_steps: int, calls_per_step: int = 1) -> None:
        self._num_steps = num_steps
        self._calls_per_step = calls_per_step
        self.scheduler: Any = None
        self._step = 0
        self._branches: list[str] = []

    @property
    def num_steps(self) -> int:
        """Return the steps of a generation."""
        return self._num_steps

    @property
    def has_guidance(self) -> bool | None:
        """Return None: a bare model does not show whether there is guidance."""
        return None

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown."""
        # 1 is also the default of users who name branches with cache_context.
        return self._calls_per_step if self._calls_per_step > 1 else None

    def restart(self) -> None:
        """Begin a generation: the next call is its first one."""
        self._step = 0
        self._branches = []

    def detach(self) -> None:
        """Do nothing: this clock watches no scheduler."""

    def next_call(self, context: str | None, arguments: Mapping[str, Any] | None = None) -> Call:
        """Return step and branch of the forward call that begins now."""
        if self._is_step_over(context):
            self._begin_step(arguments or {})
        branch = str(len(self._branches)) if context is None else context
        first_in_step = not self._branches
        self._branches.append(branch)
        return Call(
            self._step,
            branch,
            first_in_generation=first_in_step and self._step == 1,
            first_in_step=first_in_step,
            near_end=self._is_near_end(),
        )

    def _begin_step(self, arguments: Mapping[str, Any]) -> None:
        self._step = 1 if self._step >= self._num_steps else self._step + 1
        self._branches = []

    def _is_near_end(self) -> bool:
        return False

    def _is_step_over(self, context: str | None) -> bool:
        if self._step == 0:
            return True
        if context is not None:
            return context in self._branches
        return len(self._branches) >= self._calls_per_step
