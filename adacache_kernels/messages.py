"""Warn and log in the name of the package. A warning points at the line of the user's code."""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from types import FrameType

from .options import AdaCacheWarning

LOGGER = "adacache_kernels"
"""The name of the logger that receives every user warning."""
LIBRARIES = ("adacache_kernels", "accelerate", "contextlib", "diffusers", "functools", "torch")
"""Packages between the user's code and a warning. Their lines tell the user nothing."""


@functools.cache
def logger() -> logging.Logger:
    """Return the logger of the package.

    Without a handler of the user, it prints nothing: the warning is printed already.
    """
    found = logging.getLogger(LOGGER)
    found.addHandler(logging.NullHandler())
    return found


def warn_user(text: str) -> None:
    """Log the text, and show it as an `AdaCacheWarning`."""
    logger().warning("%s", text)
    show_warning(text)


def show_warning(text: str) -> None:
    """Show the text as an `AdaCacheWarning` that points at the line of the user's code."""
    frame = _users_frame()
    names = frame.f_globals
    warnings.warn_explicit(
        text,
        AdaCacheWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=names.get("__name__"),
        registry=names.setdefault("__warningregistry__", {}),
    )


def _users_frame() -> FrameType:
    """Return the innermost frame outside of the libraries; the outermost frame if there is none."""
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_back is not None and _is_of_library(frame):
        frame = frame.f_back
    return frame


def _is_of_library(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.split(".")[0] in LIBRARIES
