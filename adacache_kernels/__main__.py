"""`python -m adacache_kernels` is `adacache info`."""

import sys

from .cli import main

sys.exit(main(["info"]))
