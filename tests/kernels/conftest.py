"""Fixtures of this folder."""

from tests.support.triton_fixtures import emulator, on_triton

__all__ = ["emulator", "on_triton"]
