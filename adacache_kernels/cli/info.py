"""`adacache info`: how the package was built, and what it found to run on."""

from __future__ import annotations

import argparse
import platform

import torch

from .. import _native
from ..memory.errors import ArenaError, package_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(_arguments: argparse.Namespace) -> None:
    """Print a line per fact.

    Raises:
        ImportError: the compiled part does not load.
    """
    for name, value in describe().items():
        print(f"{name.replace('_', ' '):20}{value}")


def describe() -> dict[str, str]:
    """Name and value of everything that a report of a problem should tell."""
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
    """Whether an arena maps memory to addresses of the first device, by making a small one."""
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
