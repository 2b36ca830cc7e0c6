"""The torch ops of the package. This wing alone launches a kernel. It may import kernels alone."""

from .decision_state import SEQUENCES, Clock, Flag, State, new_clock, new_state, reset_state
from .functional import (
    BATCHES,
    METRICS,
    SLOT_HOLDS,
    begin_step,
    conditional_add,
    decide,
    distance_update,
    residual_update,
)

__all__ = [
    "BATCHES",
    "METRICS",
    "SEQUENCES",
    "SLOT_HOLDS",
    "Clock",
    "Flag",
    "State",
    "begin_step",
    "conditional_add",
    "decide",
    "distance_update",
    "new_clock",
    "new_state",
    "reset_state",
    "residual_update",
]
