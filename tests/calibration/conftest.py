"""Fixtures of this folder."""

from tests.support.tiny_calibration import faster, plain, seconds
from tests.support.tiny_profile import tiny_profile

__all__ = ["faster", "plain", "seconds", "tiny_profile"]
