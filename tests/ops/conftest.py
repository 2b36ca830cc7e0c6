"""Fixtures of this folder."""

from tests.support.op_checks.compiled_ops import instruction_set
from tests.support.op_checks.triton_fixtures import emulator, on_triton

__all__ = ["emulator", "instruction_set", "on_triton"]
