"""What the emulator raises: one class for each kind of mistake that it can see."""


class EmulatorError(Exception):
    """Anything that stops an emulated launch."""


class MemoryFault(EmulatorError):
    """An access out of bounds or misaligned."""


class UninitialisedRead(MemoryFault):
    """A read of memory that nothing has written."""


class RaceError(EmulatorError):
    """Two threads touch the same byte, one of them writing, with nothing to order them."""


class SyncError(EmulatorError):
    """A barrier or a warp exchange that not all of the threads it needs will reach."""


class StepLimit(EmulatorError):
    """The kernel runs longer than it was allowed to: most likely an endless loop."""


class Trap(EmulatorError):
    """The kernel executed `trap`."""


class Unsupported(EmulatorError):
    """An instruction, a modifier or an operand that the emulator does not know."""
