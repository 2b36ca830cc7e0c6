"""The `adacache` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import bench_quality as bench
from . import calibrate, demo, info

COMMANDS = {
    "bench": (bench, "methods against each other: quality, work, time, memory"),
    "calibrate": (calibrate, "settings for a speedup or a PSNR, saved for patch()"),
    "demo": (demo, "a small text-to-video pipeline, unpatched and patched"),
    "info": (info, "how the package was built, and what it found to run on"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adacache COMMAND ...`; 0 if it went well, 2 after an error that the user can mend."""
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
