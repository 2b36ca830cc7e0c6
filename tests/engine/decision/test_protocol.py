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

RANDOM = [f"random:{seed}" for seed in range(1, 4)]
MODELS = pytest.mark.parametrize(("name", "what"), [("wan", "plain"), ("latte", "moreg")])


def generations(driver: Path, name: str, what: str, *ways: str) -> tuple[list[Any], list[Any]]:
    """Return computed steps, rates and video of decision="sync", and a report for each way."""
    environment = {"LD_LIBRARY_PATH": str(driver / "lib"), "FAKECUDA_HOST_NODES": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.protocol_script", name, what, *ways],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    expected, *reports = map(json.loads, done.stdout.splitlines())
    assert {2, 4} <= set(expected[1]), "the rates differ from step to step"
    return expected, reports


@MODELS
def test_every_pace_gives_the_schedule_of_sync(driver: Path, name: str, what: str) -> None:
    """Two generations of 50 steps: the device is far ahead, always behind, or anywhere."""
    expected, reports = generations(driver, name, what, "fast", "slow", *RANDOM)
    decisions, waits_by_pace = len(expected[0]), []
    for report in reports:
        for computed, rates, _, video in report["generations"]:
            assert [computed, rates, video] == expected
        counted = sum(waits for _, _, waits, _ in report["generations"])
        assert report["waits"] == counted, "the driver counts the same waits of the host"
        waits_by_pace.append(counted)
    assert waits_by_pace[:2] == [0, 2 * decisions]
    assert all(0 < waits < 2 * decisions for waits in waits_by_pace[2:])


def test_a_message_that_is_copied_too_early_is_never_used(driver: Path) -> None:
    """Put the copy on a stream that does not wait for the decision, as an error would do."""
    _, reports = generations(driver, "wan", "plain", *(f"misplaced:{pace}" for pace in RANDOM))
    assert all("stale message: it holds decision" in report["error"] for report in reports)


@pytest.mark.parametrize(("name", "what"), [("wan", "plain"), ("latte", "moreg"), ("wan", "two")])
def test_a_conditional_graph_follows_the_schedule(driver: Path, name: str, what: str) -> None:
    """Run two generations of 50 steps by one graph, which is captured after the first two steps."""
    expected, (report,) = generations(driver, name, what, "graph")
    for computed, rates, waits, video in report["generations"]:
        assert [computed, rates, video] == expected
        assert waits == 0
    assert report["kernels"] == ["set_condition"] * (2 * 48)
