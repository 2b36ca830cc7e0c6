"""Test the extension module under LeakSanitizer, and that LeakSanitizer finds a planted leak."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests import ROOT

CHECK = ROOT / "tests" / "tools" / "check_leaks.sh"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    compiler = os.environ.get("CC", "gcc")
    if sys.platform != "linux" or shutil.which(compiler) is None:
        pytest.skip("GCC is missing, which has LeakSanitizer")
    done = subprocess.run(
        ["bash", str(CHECK), "lsan", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHON": sys.executable},
    )
    if "no liblsan.so" in done.stderr:
        pytest.skip("this GCC is without LeakSanitizer")
    if "LeakSanitizer has encountered a fatal error" in done.stderr:
        pytest.skip("LeakSanitizer has no permission to inspect processes")
    assert "used everything" in done.stdout, done
    return done


def test_nothing_leaks() -> None:
    done = check()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_leak_is_found() -> None:
    done = check("leak")
    assert done.returncode == 23
    assert "Direct leak" in done.stderr
