"""Decisions on the fake driver, with compiled kernels: none stale, none lost, in every order.

What no such test can show: a real driver's acceptance of the calls, and a real capture by torch.
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

RANDOM = [f"random:{seed}" for seed in range(1, 4)]
MISPLACED = [f"misplaced:{pace}" for pace in RANDOM]


def generations(driver: Path, name: str, what: str, *ways: str) -> tuple[list[Any], list[Any]]:
    """Computed steps, rates and video of decision="sync", and what came out of each way."""
    found = {"LD_LIBRARY_PATH": str(driver / "lib"), "FAKECUDA_HOST_NODES": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.protocol_script", name, what, *ways],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **found},
    )
    assert done.returncode == 0, done.stderr
    expected, *reports = map(json.loads, done.stdout.splitlines())
    assert {2, 4} <= set(expected[1]), "the rates differ from step to step"
    return expected, reports


@pytest.mark.parametrize(("name", "what"), [("wan", "plain"), ("latte", "moreg")])
def test_every_way_gives_the_schedule_of_sync(driver: Path, name: str, what: str) -> None:
    """Ask one process for all ways: to start it takes longer than a way."""
    letters = MISPLACED if name == "wan" else []
    expected, reports = generations(driver, name, what, "graph", "fast", "slow", *RANDOM, *letters)
    a_conditional_graph_takes_the_ways_of_the_schedule(expected, reports.pop(0))
    a_letter_that_leaves_too_early_is_never_used(reports[5:])
    every_pace_gives_the_schedule(expected, reports[:5])


def test_two_videos_in_a_conditional_graph(driver: Path) -> None:
    expected, (report,) = generations(driver, "wan", "two", "graph")
    a_conditional_graph_takes_the_ways_of_the_schedule(expected, report)


def every_pace_gives_the_schedule(expected: list[Any], reports: list[Any]) -> None:
    """50 steps, twice: the device far ahead, always behind, or anywhere."""
    decisions, waited = len(expected[0]), []
    for report in reports:
        for computed, rates, _, video in report["generations"]:
            assert [computed, rates, video] == expected
        counted = sum(waits for _, _, waits, _ in report["generations"])
        assert report["waits"] == counted, "the driver counts the same waits of the host"
        waited.append(counted)
    assert waited[:2] == [0, 2 * decisions]
    assert len(waited) == 5 and all(0 < waits < 2 * decisions for waits in waited[2:])


def a_letter_that_leaves_too_early_is_never_used(reports: list[Any]) -> None:
    """The copy is put on a stream that knows nothing of the decision's, as a fault would."""
    assert all("stale message: it holds decision" in report["error"] for report in reports)


def a_conditional_graph_takes_the_ways_of_the_schedule(expected: list[Any], report: Any) -> None:
    """50 steps, twice, by one graph: the first two steps are computed before it is captured."""
    for computed, rates, waits, video in report["generations"]:
        assert [computed, rates, video] == expected
        assert waits == 0
    assert report["kernels"] == ["set_condition"] * (2 * 48)
