"""Define the torch ops of the package. This wing alone launches a kernel.

It may import kernels and the compiled module. Importing it registers the ops with torch:
torch.compile looks an op up when it traces, before the first call.
"""

from . import registration
from .checks import BATCHES, METRICS, SLOT_HOLDS
from .decide_settings import DecideSettings
from .decision_state import (
    SEQUENCES,
    Flag,
    State,
    StepState,
    new_state,
    new_step_state,
    reset_state,
)
from .functional import begin_step, conditional_add, decide, distance_update, residual_update

registration.register()

__all__ = [
    "BATCHES",
    "METRICS",
    "SEQUENCES",
    "SLOT_HOLDS",
    "DecideSettings",
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
