"""Amounts of memory: as people write them, and as devices have them."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

import torch

UNITS = {"B": 1}
UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}
UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}

_BY_LOWER_CASE = {unit.lower(): factor for unit, factor in UNITS.items()}


def parse_bytes(text: str) -> int:
    """Bytes of ``"512MiB"``, ``"2GiB"`` (1024 based), ``"1.5GB"`` (1000 based) or ``"4096"``.

    A fraction of a byte is dropped. Upper or lower case, with or without a space.

    Raises:
        ValueError: not such a text, or less than one byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text, re.ASCII)
    factor = _BY_LOWER_CASE.get(found[2].lower() or "b") if found else None
    amount = int(Fraction(found[1]) * factor) if found and factor else 0
    if amount < 1:
        raise ValueError(
            f"{text!r} is no amount of memory, expected a number with a unit of "
            f"{', '.join(UNITS)}, as in '512MiB', '2GiB' or '1.5GB'"
        )
    return amount


def format_bytes(amount: int) -> str:
    """Four digits and a unit at most: ``"2 GiB"``, ``"1.5 MiB"``, ``"17 B"``."""
    power = min(max(amount.bit_length() - 1, 0) // 10, 4)
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{amount / 1024**power:.4g} {unit}"


def free_memory(device: torch.device) -> int:
    """Bytes of a device that nobody uses now; of a CPU, what the system can still give.

    Raises:
        ValueError: a device that does not tell.
    """
    if device.type == "cpu":
        return _free_host_memory()
    return _device_memory(device)[0]


def total_memory(device: torch.device) -> int:
    """Bytes that a device has.

    Raises:
        ValueError: a device that does not tell.
    """
    if device.type == "cpu":
        return _sysconf("SC_PHYS_PAGES") * _sysconf("SC_PAGE_SIZE")
    return _device_memory(device)[1]


def _device_memory(device: torch.device) -> tuple[int, int]:
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.driver_allocated_memory(), total
    tells = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    if tells is None:
        raise ValueError(_does_not_tell(device.type))
    free, total = tells(device)
    return int(free), int(total)


def _free_host_memory() -> int:
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return _sysconf("SC_AVPHYS_PAGES") * _sysconf("SC_PAGE_SIZE")
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)
    if found is None:
        raise ValueError(_does_not_tell("cpu"))
    return int(found[1]) * 1024


def _sysconf(name: str) -> int:
    try:
        return os.sysconf(name)
    except (AttributeError, OSError, ValueError):
        raise ValueError(_does_not_tell("cpu")) from None


def _does_not_tell(device: str) -> str:
    return f"device {device} does not tell how much memory it has: give max_bytes in bytes"
