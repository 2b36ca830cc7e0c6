"""The torch ops of the package. This wing alone launches a kernel. It may import kernels alone."""

from .decision_state import (
    SEQUENCES,
    Flag,
    State,
    StepState,
    new_state,
    new_step_state,
    reset_state,
)
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
    "Flag",
    "State",
    "StepState",
    "begin_step",
    "conditional_add",
    "decide",
    "distance_update",
    "new_state",
    "new_step_state",
    "reset_state",
    "residual_update",
]
