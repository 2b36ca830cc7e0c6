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
LONGEST_STRIDE = 0.3
"""The longest first stride, as a part of all timesteps. Four equal steps have 0.25."""


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

    def begins_another(self, time: float) -> bool:
        """Return True if this timestep begins another generation."""
        if self._first is not None and len(self._times) == 1 and time != self._first:
            return not _is_plausible(self._first, time)
        return self.turns_back(time)

    def turns_back(self, time: float) -> bool:
        """Return True if this timestep changes the direction, or is the first one again."""
        if len(self._times) < 2 or time == self.now:
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


def _is_plausible(first: float, second: float) -> bool:
    """Return True if `second` may follow the first timestep of a generation.

    Timesteps fall, or they rise from the lower half. A longer stride than `LONGEST_STRIDE` begins
    another generation, for example one of a video that is given in part.
    """
    scale = 1.0 if max(abs(first), abs(second)) <= 1 else 1000.0
    if second > first > scale / 2:
        return False
    return abs(second - first) <= LONGEST_STRIDE * scale
