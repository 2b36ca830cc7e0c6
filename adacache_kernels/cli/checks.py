"""Checks of the options that several commands share. Messages name the option and its value."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from ..measure.shared_work import Place, launched_place
from ..schedule.json_file import short
from ..schedule.profile import MOST_STEPS

SEED_END = 2**63
"""Seeds are below this."""

MOST_SECONDS = 1e6
"""Seconds of --rank-timeout are not above this."""

LIMITS = {
    "steps": (1, MOST_STEPS),
    "seeds": (1, 1_000_000),
    "first_seed": (0, SEED_END - 1),
    "seed": (0, SEED_END - 1),
    "threads": (1, 1024),
    "trials": (1, MOST_STEPS),
    "rounds": (1, MOST_STEPS),
    "refine": (0, MOST_STEPS),
}
"""The least and the most of each option that is an integer."""


def check_numbers(arguments: argparse.Namespace) -> None:
    """Check all options that are integers.

    Raises:
        ValueError: one is out of range.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(arguments, name, least)
        if not least <= value <= most:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is {short(value)}; it must be from {least} to {most}")
    limit = getattr(arguments, "rank_timeout", 1.0)
    if not 1 <= limit <= MOST_SECONDS:
        raise ValueError(
            f"--rank-timeout is {limit:g}; it must be from 1 to {MOST_SECONDS:g} seconds"
        )
    last = getattr(arguments, "first_seed", 0) + getattr(arguments, "seeds", 1) - 1
    if last >= SEED_END:
        raise ValueError(
            f"--first-seed is {arguments.first_seed} and --seeds {arguments.seeds}; the last seed "
            f"must be below {SEED_END}"
        )


def check_device(name: str | None) -> str:
    """Return the device, by default CUDA if there is a GPU, else the CPU.

    Each rank of a launcher has the GPU of its local rank by default.

    Raises:
        ValueError: torch cannot compute on the device, or there is no GPU for this rank.
    """
    if name is None:
        return _default_device(launched_place())
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # Backends raise errors of many classes.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--device {short(name)} cannot be used; it must be such as cpu or cuda: {reason}"
        ) from error
    return name


def _default_device(place: Place) -> str:
    if not torch.cuda.is_available():
        return "cpu"
    if place.size == 1:
        return "cuda"
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise ValueError(
            f"local rank {place.local_rank} needs cuda:{place.local_rank}, and this machine shows "
            f"{count} GPUs; start as many ranks as GPUs, or give --device cuda:0 if each rank sees "
            "its own one"
        )
    return f"cuda:{place.local_rank}"


def check_folder(folder: Path) -> None:
    """Make the folder of --out, and check that files can be written to it.

    Raises:
        OSError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b" " * 4096)
    except FileExistsError as error:
        raise OSError(f"--out: cannot write to {folder}, a file; name a folder") from error
    except OSError as error:
        raise OSError(f"--out: cannot write to {folder}: {error.strerror or error}") from error


def one_line(text: str) -> str:
    """Return a message on one line, without characters that cannot be printed."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
