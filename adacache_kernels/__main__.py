"""Run `adacache` as `python -m adacache_kernels`; without arguments, run `adacache info`."""

import sys

from .cli.main import main

sys.exit(main(sys.argv[1:] or ["info"]))
