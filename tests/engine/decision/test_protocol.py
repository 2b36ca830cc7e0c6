"""Decisions on the driver stub with compiled kernels: none is stale or lost, in any order.

These tests cannot show that a real driver accepts the calls, nor a real capture by torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow

RANDOM = [f"random:{seed}" for seed in range(1, 4)]
MISPLACED = [f"misplaced:{pace}" for pace in RANDOM]


def generations(driver: Path, name: str, what: str, *ways: str) -> tuple[list[Any], list[Any]]:
    """Return computed steps, rates and video of decision="sync", and a report for each way."""
    environment = {"LD_LIBRARY_PATH": str(driver / "lib"), "FAKECUDA_HOST_NODES": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.protocol_script", name, what, *ways],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    expected, *reports = map(json.loads, done.stdout.splitlines())
    assert {2, 4} <= set(expected[1]), "the rates differ from step to step"
    return expected, reports


@pytest.mark.parametrize(("name", "what"), [("wan", "plain"), ("latte", "moreg")])
def test_every_way_gives_the_schedule_of_sync(driver: Path, name: str, what: str) -> None:
    """One process runs all ways, because its start takes longer than a way."""
    misplaced = MISPLACED if name == "wan" else []
    expected, reports = generations(
        driver, name, what, "graph", "fast", "slow", *RANDOM, *misplaced
    )
    check_conditional_graph(expected, reports.pop(0))
    check_early_copies(reports[5:])
    check_paces(expected, reports[:5])


def test_two_videos_in_a_conditional_graph(driver: Path) -> None:
    expected, (report,) = generations(driver, "wan", "two", "graph")
    check_conditional_graph(expected, report)


def check_paces(expected: list[Any], reports: list[Any]) -> None:
    """Check two generations of 50 steps: the device is far ahead, always behind, or anywhere."""
    decisions, waits_by_pace = len(expected[0]), []
    for report in reports:
        for computed, rates, _, video in report["generations"]:
            assert [computed, rates, video] == expected
        counted = sum(waits for _, _, waits, _ in report["generations"])
        assert report["waits"] == counted, "the driver counts the same waits of the host"
        waits_by_pace.append(counted)
    assert waits_by_pace[:2] == [0, 2 * decisions]
    assert len(waits_by_pace) == 5
    assert all(0 < waits < 2 * decisions for waits in waits_by_pace[2:])


def check_early_copies(reports: list[Any]) -> None:
    """Check that messages which are copied before the decision are never used."""
    assert all("stale message: it holds decision" in report["error"] for report in reports)


def check_conditional_graph(expected: list[Any], report: Any) -> None:
    """Check two generations of 50 steps by one graph, captured after the first two steps."""
    for computed, rates, waits, video in report["generations"]:
        assert [computed, rates, video] == expected
        assert waits == 0
    assert report["kernels"] == ["set_condition"] * (2 * 48)
