"""Fixtures of this folder."""

from tests.support.graph_closures import capture

__all__ = ["capture"]
