"""Compute or reuse: which of the two a step is, told on the device."""

import triton
import triton.language as tl

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
    """The fields of `ops.Clock`, and the flags to compute and to reuse, when a step begins."""
    step = tl.load(clock) + 1
    computed_step, next_step = tl.load(state + 1), tl.load(state + 5)
    is_reusable = (step >= first_reusable) & (step <= last_reusable)
    reuses = (is_reusable & (step < next_step)).to(tl.int32)
    is_in_window = (step >= window_begin) & (step <= window_end)
    tl.debug_barrier()  # One thread writes what all of them have read.
    tl.store(clock + 0, step)
    tl.store(clock + 1, (computed_step > 0).to(tl.float32))
    tl.store(clock + 2, is_in_window.to(tl.float32))
    tl.store(flags + 0, 1 - reuses)
    tl.store(flags + 1, reuses)
