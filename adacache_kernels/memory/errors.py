"""What can go wrong with a cache arena."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _native


class ArenaError(RuntimeError):
    """The memory of a cache could not be had, or not given back."""


class CaptureError(ArenaError):
    """It would have meant mapping memory or waiting while a CUDA graph is being captured."""


class ArenaOutOfMemoryError(ArenaError, torch.OutOfMemoryError):
    """There is less memory, or less of the arena's budget, than was asked for.

    Whoever catches ``torch.OutOfMemoryError`` catches this too.
    """


class OverBudgetError(ArenaOutOfMemoryError):
    """The budget is what there is less of: no memory that is freed elsewhere would help."""


class CacheBudgetError(ArenaError):
    """The cache fits in none of the ways that the settings allow."""


@contextmanager
def package_errors() -> Iterator[None]:
    """Raises the errors of the compiled arena as those of this package."""
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
