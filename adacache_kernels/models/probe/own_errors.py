"""Tell the errors of this package from those of a model's own forward."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch import nn

PACKAGE = Path(__file__).parents[2]
TORCH = Path(torch.__file__).parent
REPLACED = ("StandIn", "'tuple' object", "'dict' object")
"""Words of the errors of a model that needs its own list of blocks, not the replacing objects."""


def is_ours(error: Exception) -> bool:
    """Return True if the error comes from this package, or from what it has replaced in a model."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, AttributeError | TypeError) and any(w in str(error) for w in REPLACED):
        return True
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    outside = [file for file in files if TORCH not in file.parents]
    return bool(outside) and PACKAGE in outside[-1].parents


def is_misread(error: Exception) -> bool:
    """Return True if the error comes from the code that reads a model by its adapter."""
    frames = traceback.extract_tb(error.__traceback__)
    folders = Path(frames[-1].filename).parents if frames else ()
    # The checks for other libraries refuse a model that is read rightly.
    return PACKAGE / "models" in folders and PACKAGE / "models" / "other_libraries" not in folders


def misread_message(model: str, error: Exception) -> str:
    """Return the message of the error for a model that is not what its adapter describes."""
    return (
        f"{model} cannot be cached: a call shows that it is not what its class suggests "
        f"({type(error).__name__}: {error}). The model is no longer patched"
    )


def unreadable_message(model: nn.Module, error: Exception) -> str:
    """Return the message of the error for a model that this package fails to read."""
    return (
        f"{type(model).__name__} cannot be cached: its blocks could not be read "
        f"({type(error).__name__}: {error}); expected a forward that runs the modules of a list "
        "one after another and passes tensors on. The model is no longer patched"
    )
