"""The extension module without its package, whose import would import torch too."""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any


def load() -> Any:
    """Load `_C` from the package's folder."""
    package = importlib.util.find_spec("adacache_kernels")
    assert package is not None and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0])
    (path,) = (p for suffix in EXTENSION_SUFFIXES for p in folder.glob(f"_C{suffix}"))
    spec = importlib.util.spec_from_file_location("_C", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
