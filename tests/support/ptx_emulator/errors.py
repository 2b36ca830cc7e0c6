"""The errors of the emulator: one class for each kind of mistake that it detects."""


class EmulatorError(Exception):
    """An error that stops an emulated launch."""


class MemoryFault(EmulatorError):
    """An access out of bounds or misaligned."""


class UninitialisedRead(MemoryFault):
    """A read of memory that was never written."""


class RaceError(EmulatorError):
    """Unordered accesses of two threads to one byte, at least one of them a write."""


class SyncError(EmulatorError):
    """A barrier or a warp exchange that some of its threads do not reach."""


class StepLimit(EmulatorError):
    """A kernel that exceeds its step limit: most likely an endless loop."""


class Trap(EmulatorError):
    """A `trap` instruction of the kernel."""


class Unsupported(EmulatorError):
    """An instruction, a modifier or an operand that the emulator does not support."""
