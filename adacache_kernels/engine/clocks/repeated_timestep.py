"""Tells by a timestep that two calls are of one step, without reading it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..user_warnings import SAME_TIMESTEP, UserWarnings
from .timestep_clock import NAMES


class RepeatedTimestepCheck:
    """Remembers the tensor that was the last step's timestep.

    Pipelines that call the model twice a step, for guidance, hand both calls the very same tensor;
    for the next step they make another one, or write into it.
    """

    def __init__(self, notices: UserWarnings) -> None:
        self._notices = notices
        self._last: weakref.ref[Tensor] | None = None
        self._version = -1

    def note(self, arguments: Mapping[str, Any]) -> None:
        """A step begins; warns if the timestep among its arguments is that of the one before."""
        timestep = next((arguments[name] for name in NAMES if name in arguments), None)
        # Inference tensors count no versions, so that a write could not be told.
        if not isinstance(timestep, Tensor) or timestep.is_inference():
            self._last = None
            return
        is_same = self._last is not None and self._last() is timestep
        if is_same and self._version == timestep._version:
            self._notices.say("same timestep", SAME_TIMESTEP)
        self._last, self._version = weakref.ref(timestep), timestep._version
