"""Policies: from what is known of a generation to what a step does. Pure Python, no torch."""

from .adacache import AdaCachePolicy
from .decision import Decision

__all__ = ["AdaCachePolicy", "Decision"]
