"""The loader of the compiled extension module `adacache_kernels._C`."""

from __future__ import annotations

import functools
from types import ModuleType


@functools.cache
def module() -> ModuleType:
    """Return the extension module `adacache_kernels._C`, imported at the first call.

    Raises:
        ImportError: the extension module is missing, or does not load.
    """
    try:
        from . import _C
    except ImportError as error:
        raise ImportError(
            f"the compiled part of adacache_kernels does not load ({error}). In a source tree, "
            "build it with `pip install .`, or with `pip install -e .` to work on the sources; "
            "both need a C++17 compiler. Otherwise, install the package again"
        ) from error
    return _C
