"""Decide as one with the other ranks that work on the same video."""
