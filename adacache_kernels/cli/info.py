"""`adacache info`: print the build of the package, and the software and devices it runs on."""

from __future__ import annotations

import argparse
import platform

import torch

from .. import _native
from ..memory.errors import ArenaError, package_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: there are no options."""


def run(_arguments: argparse.Namespace) -> None:
    """Print a line for each fact.

    Raises:
        ImportError: the compiled extension does not load.
    """
    for name, value in describe().items():
        print(f"{name.replace('_', ' '):20}{value}")


def describe() -> dict[str, str]:
    """Return names and values of all facts that a bug report needs."""
    built = {
        name: " ".join(value) or "none" if isinstance(value, list) else str(value)
        for name, value in _native.module().build_config().items()
    }
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return built | {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton_version(),
        "torch cuda": torch.version.cuda or "off",
        "devices": ", ".join(devices) or "cpu only",
        "virtual memory": _virtual_memory(),
    }


def _virtual_memory() -> str:
    """Allocate a small arena, and return whether it uses virtual memory of the first device."""
    try:
        with package_errors():
            stats = _native.module().Arena("cuda", 0, 1 << 20, 1 << 20).stats()
    except ArenaError as error:
        return f"no: {error}"
    return "yes" if stats["is_virtual"] else f"no: {stats['why_not_virtual']}"


def _triton_version() -> str:
    try:
        import triton
    except ImportError:
        return "none: the ops run in plain torch on a GPU"
    return str(triton.__version__)
