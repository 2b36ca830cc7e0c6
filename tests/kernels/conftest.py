"""Fixtures of this folder."""

from tests.support.op_checks.triton_fixtures import emulator, on_triton

__all__ = ["emulator", "on_triton"]
