"""Errors of the cache's memory, and the translation of the compiled arena's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _native


class ArenaError(RuntimeError):
    """An arena could not allocate or free memory."""


class CaptureError(ArenaError):
    """A call would have mapped memory, or waited, while a CUDA graph is captured."""


class ArenaOutOfMemoryError(ArenaError, torch.OutOfMemoryError):
    """A request for more memory than the device, or the arena's budget, has left.

    An `except torch.OutOfMemoryError` catches it too.
    """


class OverBudgetError(ArenaOutOfMemoryError):
    """A request that exceeds the arena's budget: freeing memory elsewhere does not help."""


class CacheBudgetError(ArenaError):
    """A cache that fits with none of the storages that the settings allow."""


@contextmanager
def package_errors() -> Iterator[None]:
    """Raise the errors of the compiled arena as the classes of this module."""
    native = _native.module()
    try:
        yield
    except native.OverBudget as error:
        raise OverBudgetError(str(error)) from None
    except native.OutOfMemory as error:
        raise ArenaOutOfMemoryError(str(error)) from None
    except native.CaptureError as error:
        raise CaptureError(str(error)) from None
    except native.ArenaError as error:
        raise ArenaError(str(error)) from None
