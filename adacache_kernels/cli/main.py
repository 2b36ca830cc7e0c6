"""`adacache`: parse the command and run it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from ..measure.shared_work import MissingRankError
from ..memory.errors import ArenaError
from . import bench_quality as bench
from . import calibrate, demo, info
from .checks import one_line

COMMANDS = {
    "bench": (bench, "compare methods: quality, work, time, memory"),
    "calibrate": (calibrate, "find settings for a speedup or a PSNR, and save them for patch()"),
    "demo": (demo, "run a small text-to-video pipeline, unpatched and patched"),
    "info": (info, "print the build of the package, and the software and devices it runs on"),
}

USER_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    ArenaError,
    MissingRankError,
    torch.OutOfMemoryError,
)
"""Errors that have a message for the user. Any other is a bug, and keeps its traceback."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message, and exit with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adacache COMMAND ...`.

    Args:
        argv: the words after `adacache`; None for those of this process.

    Returns:
        The exit code: 0, 2 after an error that the user can correct, 130 after an interruption.
    """
    arguments = make_parser().parse_args(argv)
    module, _ = COMMANDS[arguments.command]
    try:
        module.run(arguments)
        sys.stdout.flush()
    except USER_ERRORS as error:
        _drop_output()
        text = one_line(str(error)) or type(error).__name__
        print(f"adacache {arguments.command}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"adacache {arguments.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="adacache", description="Adaptive Caching for video DiTs.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, description) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=description, description=description))
    return parser


def _drop_output() -> None:
    """Send the rest of the output nowhere if nobody reads it, or its disk is full."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
