"""Fixtures of this folder."""

from tests.support.tiny_profile import tiny_profile

__all__ = ["tiny_profile"]
