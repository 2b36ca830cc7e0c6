"""An emulator that runs compiled GPU kernels on a machine without a GPU; see README.md here."""

from .aot import Compiled, compile_ahead
from .errors import (
    EmulatorError,
    MemoryFault,
    RaceError,
    StepLimit,
    SyncError,
    Trap,
    UninitialisedRead,
    Unsupported,
)
from .machine import Execution, Kernel, Order, launch, load_kernel
from .memory import GlobalMemory, Traffic
from .mutants import Mutant, Report, Verdict, survey
from .triton_driver import EmulatorDriver, Launch, emulated, install

__all__ = [
    "Compiled",
    "EmulatorDriver",
    "EmulatorError",
    "Execution",
    "GlobalMemory",
    "Kernel",
    "Launch",
    "MemoryFault",
    "Mutant",
    "Order",
    "RaceError",
    "Report",
    "StepLimit",
    "SyncError",
    "Traffic",
    "Trap",
    "UninitialisedRead",
    "Unsupported",
    "Verdict",
    "compile_ahead",
    "emulated",
    "install",
    "launch",
    "load_kernel",
    "survey",
]
