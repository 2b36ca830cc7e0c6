"""The contract of the layers: it holds, and an upward import or a circle breaks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

LAYERS = "A wing imports only the wings below it"
CIRCLES = "No circle of imports"

pytest.importorskip("importlinter", reason="import-linter is not installed")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with the package's sources and the contract."""
    ignored = shutil.ignore_patterns("weights", "profiles", "__pycache__", "*.so")
    shutil.copytree(ROOT / "adacache_kernels", tmp_path / "adacache_kernels", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("ops/checks.py", "from ..engine import Summary", LAYERS),
        ("measure/timing.py", "from ..kernels import load", LAYERS),
        ("memory/byte_sizes.py", "from .arena import CacheArena", CIRCLES),
        ("new_wing/__init__.py", "", LAYERS),
    ],
)
def test_what_breaks_them_is_found(copy: Path, module: str, line: str, broken: str) -> None:
    path = copy / "adacache_kernels" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{broken} BROKEN" in done.stdout
