"""The policy of a schedule that is fixed in advance."""

from __future__ import annotations

from collections.abc import Iterable

from .decision import Decision


class FixedPolicy:
    """A policy that computes the given steps, and step 1, which has nothing to reuse.

    Args:
        num_steps: number of steps of the generation.
        steps: steps to compute, counted from 1.

    Raises:
        ValueError: a step is greater than `num_steps`.
    """

    def __init__(self, num_steps: int, steps: Iterable[int]) -> None:
        self.num_steps = num_steps
        self._steps = frozenset(steps) | {1}
        if max(self._steps) > num_steps:
            raise ValueError(
                f"schedule computes step {max(self._steps)}, but the generation has {num_steps} "
                "steps; give steps from 1 to that number"
            )

    def observe(self, decision: Decision) -> Decision:
        """Return the decision unchanged: it does not matter here."""
        return decision

    def compute(self, step: int, last: Decision | None) -> bool:
        """Return True if `step` is one of the given steps."""
        return step in self._steps

    def may_reuse_after(self, step: int) -> bool:
        """Return True if step + 1 is reused."""
        return step < self.num_steps and step + 1 not in self._steps

    @property
    def last_reusable_step(self) -> int:
        """Return the last step that is reused; 0 if none is."""
        return max(set(range(1, self.num_steps + 1)) - self._steps, default=0)

    @property
    def most_reusable_steps(self) -> int:
        """Return the number of steps that are reused."""
        return self.num_steps - len(self._steps)


def evenly_spread(count: int, num_steps: int) -> list[int]:
    """Return a schedule of `count` computed steps that are evenly spread.

    It has the last step, and `count` - 1 steps with even gaps from the first to the last but one.

    Args:
        count: number of computed steps, at least 3.
        num_steps: number of steps of the generation.

    Raises:
        ValueError: `count` is below 3 or above `num_steps`.
    """
    if not 3 <= count <= num_steps:
        raise ValueError(f"count is {count}; it may be 3 to {num_steps}, the number of steps")
    span = num_steps - 2
    return [1 + round(i * span / (count - 2)) for i in range(count - 1)] + [num_steps]
