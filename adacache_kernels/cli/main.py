"""`adacache`: parse the command and run it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import bench_quality as bench
from . import calibrate, demo, info

COMMANDS = {
    "bench": (bench, "compare methods: quality, work, time, memory"),
    "calibrate": (calibrate, "find settings for a speedup or a PSNR, and save them for patch()"),
    "demo": (demo, "run a small text-to-video pipeline, unpatched and patched"),
    "info": (info, "print the build of the package, and the software and devices it runs on"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adacache COMMAND ...`.

    Args:
        argv: the words after `adacache`; None for those of this process.

    Returns:
        The exit code: 0, or 2 after an error that the user can correct.
    """
    parser = argparse.ArgumentParser(
        prog="adacache", description="Adaptive Caching for video DiTs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, description) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=description, description=description))
    arguments = parser.parse_args(argv)
    module, _ = COMMANDS[arguments.command]
    try:
        module.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"adacache {arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
