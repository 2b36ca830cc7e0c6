"""Amounts of memory: parsing, formatting, and the free and total memory of devices."""

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
    """Return the bytes of a text such as "512MiB", "2GiB", "1.5GB" or "4096".

    KiB, MiB, GiB and TiB are powers of 1024; KB, MB, GB and TB are powers of 1000. Upper and lower
    case are the same, and a space before the unit is allowed. A fraction of a byte is dropped.

    Raises:
        ValueError: `text` is no such amount, or less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text, re.ASCII)
    factor = _BY_LOWER_CASE.get(match[2].lower() or "b") if match else None
    amount = int(Fraction(match[1]) * factor) if match and factor else 0
    if amount < 1:
        raise ValueError(
            f"{text!r} is no amount of memory, expected a number with a unit of "
            f"{', '.join(UNITS)}, as in '512MiB', '2GiB' or '1.5GB'"
        )
    return amount


def format_bytes(amount: int) -> str:
    """Return an amount with at most four digits and a unit: "2 GiB", "1.5 MiB", "17 B"."""
    power = min(max(amount.bit_length() - 1, 0) // 10, 4)
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{amount / 1024**power:.4g} {unit}"


def free_memory(device: torch.device) -> int:
    """Return the bytes of a device that are free now; for a CPU, the available host memory.

    Raises:
        ValueError: the device does not report its memory.
    """
    if device.type == "cpu":
        return _free_host_memory()
    return _device_memory(device)[0]


def total_memory(device: torch.device) -> int:
    """Return the bytes of memory that a device has.

    Raises:
        ValueError: the device does not report its memory.
    """
    if device.type == "cpu":
        return _sysconf("SC_PHYS_PAGES") * _sysconf("SC_PAGE_SIZE")
    return _device_memory(device)[1]


def _device_memory(device: torch.device) -> tuple[int, int]:
    """Return the free and the total bytes of a device other than a CPU."""
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.driver_allocated_memory(), total
    mem_get_info = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    if mem_get_info is None:
        raise ValueError(_no_report(device.type))
    free, total = mem_get_info(device)
    return int(free), int(total)


def _free_host_memory() -> int:
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return _sysconf("SC_AVPHYS_PAGES") * _sysconf("SC_PAGE_SIZE")
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)
    if match is None:
        raise ValueError(_no_report("cpu"))
    return int(match[1]) * 1024


def _sysconf(name: str) -> int:
    try:
        return os.sysconf(name)
    except (AttributeError, OSError, ValueError):
        raise ValueError(_no_report("cpu")) from None


def _no_report(device: str) -> str:
    return f"device {device} does not report how much memory it has: give max_bytes in bytes"
