"""`python -m adacache_kernels` is `adacache`, and `adacache info` by itself."""

import sys

from .cli.main import main

sys.exit(main(sys.argv[1:] or ["info"]))
