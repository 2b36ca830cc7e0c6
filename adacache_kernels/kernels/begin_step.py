"""The kernel of `begin_step`: the device chooses whether a step is computed or reused."""

import triton
import triton.language as tl

from . import state_fields as fields

BOUNDS = ("first_reusable", "last_reusable", "window_begin", "window_end")


@triton.jit(do_not_specialize=BOUNDS)
def begin_step_kernel(
    clock,
    flags,
    state,
    first_reusable,
    last_reusable,
    window_begin,
    window_end,
):
    """Write the fields of `StepState` to the clock, and the flags: computed, reused."""
    step = tl.load(clock + fields.StepState.STEP) + 1
    computed_step = tl.load(state + fields.State.STEP)
    next_step = tl.load(state + fields.State.NEXT_STEP)
    is_reusable = (step >= first_reusable) & (step <= last_reusable)
    reuses = (is_reusable & (step < next_step)).to(tl.int32)
    is_in_window = (step >= window_begin) & (step <= window_end)
    tl.debug_barrier()  # One thread writes the fields that all threads read above.
    tl.store(clock + fields.StepState.STEP, step)
    tl.store(clock + fields.StepState.HAS_PREVIOUS, (computed_step > 0).to(tl.float32))
    tl.store(clock + fields.StepState.IN_WINDOW, is_in_window.to(tl.float32))
    tl.store(flags + 0, 1 - reuses)
    tl.store(flags + 1, reuses)
