"""The error for a model that is not what its adapter describes."""

from __future__ import annotations


class Misfit(ValueError):
    """An error: a call shows that the model is not what its adapter describes."""
