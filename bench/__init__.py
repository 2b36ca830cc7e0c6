"""Benchmarks of the installed package; run each from the repository, as `python -m bench...`.

`python -m` puts the repository first on `sys.path`. The source tree, which has no compiled
extension, would then hide the installed package. So the repository becomes the last entry.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The repository."""

sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT] + [str(ROOT)]
