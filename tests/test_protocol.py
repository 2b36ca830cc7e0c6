"""decision="async" on the fake driver, with compiled kernels: no decision stale, none lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from test_arena_cuda import driver

__all__ = ["driver"]  # A fixture.

SCRIPT = Path(__file__).with_name("protocol_script.py")
RANDOM = [f"random:{seed}" for seed in range(1, 4)]


def generations(driver: Path, name: str, moreg: str, *paces: str) -> tuple[Any, list[Any]]:
    """Computed steps and rates of decision="sync", and what came out at each pace."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name, moreg, *paces],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "LD_LIBRARY_PATH": str(driver / "lib")},
    )
    assert done.returncode == 0, done.stderr
    expected, *found = map(json.loads, done.stdout.splitlines())
    return expected, found


@pytest.mark.parametrize(("name", "moreg"), [("wan", "plain"), ("latte", "moreg")])
def test_every_pace_gives_the_schedule_of_sync(driver: Path, name: str, moreg: str) -> None:
    """50 steps, twice: the device far ahead, always behind, or anywhere."""
    expected, found = generations(driver, name, moreg, "fast", "slow", *RANDOM)
    decisions = len(expected[0])
    assert {2, 4} <= set(expected[1])
    waited = []
    for report in found:
        for computed, rates, waits in report["generations"]:
            assert [computed, rates] == expected
            assert 0 <= waits <= decisions
        counted = sum(waits for *_, waits in report["generations"])
        assert report["waits"] == counted, "the driver counts the same waits of the host"
        waited.append(counted)
    assert waited[:2] == [0, 2 * decisions]
    assert all(0 < waits < 2 * decisions for waits in waited[2:])


def test_a_letter_that_leaves_too_early_is_never_used(driver: Path) -> None:
    """The copy is put on a stream that knows nothing of the decision's, as a fault would."""
    _, found = generations(driver, "wan", "plain", *(f"misplaced:{pace}" for pace in RANDOM))
    assert all("stale message: it holds decision" in report["error"] for report in found)
