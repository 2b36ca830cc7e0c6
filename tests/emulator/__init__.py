"""Runs compiled GPU kernels on a machine without a GPU. See README.md in this folder."""

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
from .triton_driver import EmulatorDriver, Launch, emulated, install

__all__ = [
    "EmulatorDriver",
    "EmulatorError",
    "Execution",
    "GlobalMemory",
    "Kernel",
    "Launch",
    "MemoryFault",
    "Order",
    "RaceError",
    "StepLimit",
    "SyncError",
    "Traffic",
    "Trap",
    "UninitialisedRead",
    "Unsupported",
    "emulated",
    "install",
    "launch",
    "load_kernel",
]
