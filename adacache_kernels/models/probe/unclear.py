"""The error for a forward call that does not show how the blocks of a model are connected."""

from __future__ import annotations


class Unclear(Exception):
    """An error: the observed calls do not show one way in which the blocks are connected."""
