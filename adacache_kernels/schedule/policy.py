"""The interface of all policies."""

from __future__ import annotations

from typing import Protocol

from .decision import Decision


class Policy(Protocol):
    """The rule that decides which steps of one generation are computed. Steps count from 1."""

    def observe(self, decision: Decision) -> Decision:
        """Take the decision of a computed step; return it with the rate that the policy follows."""

    def compute(self, step: int, last: Decision | None) -> bool:
        """Return True if `step` is computed, False if it is reused.

        Args:
            step: the step, counted from 1.
            last: decision of the last computed step; None before there is one.
        """

    def may_reuse_after(self, step: int) -> bool:
        """Return True if step + 1 may be reused, so that `step` has to store its residuals."""

    @property
    def last_reusable_step(self) -> int:
        """Return the last step that may be reused; 0 if none may."""

    @property
    def most_reusable_steps(self) -> int:
        """Return the most steps that one generation may reuse."""
