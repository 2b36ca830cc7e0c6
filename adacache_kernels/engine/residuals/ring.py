"""The ring: which place holds the residual of which computed step."""

from __future__ import annotations

from collections.abc import Sequence


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
