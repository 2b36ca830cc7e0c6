"""The timesteps of one generation, where the host can read them without waiting.

A generation begins when the timestep changes its direction, or equals that of the first step. A
step may be one of the last two if the rest is no more than the next two strides, which grow as the
last two did.

Steps are not protected if timesteps end elsewhere than at 0, 1 or 1000, as those of Cosmos 1 do
(logarithms of sigma).
"""

from __future__ import annotations

MARGIN = 1.1
"""Factor for the rest of a schedule: strides of shifted schedules grow a little faster than
geometrically."""


class TimestepSequence:
    """The first and the last timesteps of a generation."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._times: list[float] = []

    @property
    def now(self) -> float | None:
        """Return the timestep of the present step; None before the first."""
        return self._times[-1] if self._times else None

    def store(self, time: float) -> None:
        """Store the timestep of a step; keep the last three that differ."""
        if self._first is None:
            self._first, self._times = time, [time]
        # A second-order solver repeats the timestep of the step before.
        elif time != self._times[-1]:
            self._times = [*self._times[-2:], time]

    def turns_back(self, time: float) -> bool:
        """Return True if this timestep begins another generation."""
        if self._first is None:
            return False
        if len(self._times) < 2:
            return False
        if time == self._first:
            return True
        *_, earlier, before = self._times
        return (time - before) * (before - earlier) < 0

    @property
    def is_near_end(self) -> bool:
        """Return True if the present step may be one of the last two."""
        if len(self._times) < 2:
            return False
        *others, before, time = self._times
        stride = time - before
        growth = max(1.0, stride / (before - others[-1])) if others else 1.0
        # Falling timesteps end at 0. Rising ones end at 1 (parts) or at 1000 (training steps).
        end = 0.0 if stride < 0 else 1.0 if time <= 1 else 1000.0
        return abs((end - time) / stride) <= MARGIN * (growth + growth**2)
