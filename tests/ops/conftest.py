"""Fixtures of this folder."""

from tests.support.compiled_ops import instruction_set
from tests.support.triton_fixtures import emulator, on_triton

__all__ = ["emulator", "instruction_set", "on_triton"]
