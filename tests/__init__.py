"""Test the installed package.

`python -m` puts the repository first on `sys.path`, where the source tree, which has no compiled
part, would shadow the installed package. The repository goes last instead.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The repository."""

sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT] + [str(ROOT)]
