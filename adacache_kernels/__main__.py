"""``python -m adacache_kernels``: how the package was built, and what it found to run on."""

from __future__ import annotations

import platform

import torch

from . import _native


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
        "torch cuda": torch.version.cuda or "off",
        "devices": ", ".join(devices) or "cpu only",
    }


if __name__ == "__main__":
    for name, value in describe().items():
        print(f"{name.replace('_', ' '):20}{value}")
