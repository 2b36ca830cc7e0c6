"""A schedule that is fixed beforehand."""

from __future__ import annotations

from collections.abc import Iterable

from .decision import Decision


class FixedPolicy:
    """compute(step) = step in steps. The first step has nothing to reuse and is always computed.

    Args:
        num_steps: steps of the generation.
        steps: to be computed, counted from 1.

    Raises:
        ValueError: a step beyond the last one.
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
        """Nothing depends on what was measured."""
        return decision

    def compute(self, step: int, last: Decision | None) -> bool:
        return step in self._steps

    def may_reuse_after(self, step: int) -> bool:
        return step < self.num_steps and step + 1 not in self._steps

    @property
    def last_reusable_step(self) -> int:
        return max(set(range(1, self.num_steps + 1)) - self._steps, default=0)

    @property
    def most_reusable_steps(self) -> int:
        return self.num_steps - len(self._steps)


def evenly_spread(count: int, num_steps: int) -> list[int]:
    """`count` steps of `num_steps`: the first, the last, and the others evenly from the first to
    the last but one, which is among them.

    Raises:
        ValueError: fewer than 3 or more than all.
    """
    if not 3 <= count <= num_steps:
        raise ValueError(f"count is {count}; it may be 3 to {num_steps}, the number of steps")
    span = num_steps - 2
    return [1 + round(i * span / (count - 2)) for i in range(count - 1)] + [num_steps]
