"""The fields of the tensors that `decide` and `begin_step` keep on the device.

The Triton kernels, the ops, the engine and csrc/ops.hpp use the same indices.
"""

from enum import IntEnum


class State(IntEnum):
    """The index of each field in the float32 state of `decide`."""

    SEQUENCE = 0
    """The sequence number of the decision, the same as `SEQUENCE_AGAIN`."""
    STEP = 1
    """The last computed step; 0 before the first."""
    DISTANCE = 2
    """The distance of that step, with motion regularization; NaN if it has none."""
    MOTION = 3
    """The motion score of that step; 1 outside of the window."""
    RATE = 4
    """The number of steps from that step to the next computed one."""
    NEXT_STEP = 5
    """The next computed step."""
    PREVIOUS_MOTION = 6
    """The motion score that the next motion gradient starts from."""
    FLAGS = 7
    """0, or the :class:`Flag` that explains a rate of 1."""
    RAW_DISTANCE = 8
    """The distance without motion regularization."""
    SEQUENCE_AGAIN = 9
    """The sequence number at the other end: a copy of half a decision has two different ones."""


class Flag(IntEnum):
    """The reason for a rate of 1 that is not from the codebook."""

    NO_PREVIOUS = 1
    """No residual was stored before."""
    NOT_FINITE = 2
    """The distance is NaN or infinite."""
    ZERO_DENOMINATOR = 4
    """A denominator is zero, or the step does not come after the last computed one."""


class StepState(IntEnum):
    """The index of each field in the float32 clock of `begin_step`."""

    STEP = 0
    """The current step; 0 before the first."""
    HAS_PREVIOUS = 1
    """1 if an earlier step of the generation was computed, else 0."""
    IN_WINDOW = 2
    """1 if the step lies in the window of motion regularization, else 0."""
