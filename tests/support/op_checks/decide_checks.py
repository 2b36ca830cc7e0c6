"""Checks of the kernel that decides, against an oracle in float64."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from adacache_kernels import ops
from tests.support.op_checks.kernel_cases import EPS, in_both_orders
from tests.support.oracles.decision_check import assert_decision
from tests.support.oracles.ops_in_float64 import exact_decision
from tests.support.ptx_emulator import EmulatorDriver

NAN, INF = math.nan, math.inf
SUMS = {
    "near": [[0.3, 40.0, 50.0, 2.0, 7.0], [0.1, 30.0, 20.0, 1.0, 5.0]],
    "middle": [[9.0, 40.0, 50.0, 2.0, 7.0], [6.0, 30.0, 20.0, 3.0, 5.0]],
    "far": [[300.0, 40.0, 50.0, 2.0, 7.0], [1.0, 30.0, 20.0, 1.0, 5.0]],
    "zero denominator": [[3.0, 0.0, 0.0, 2.0, 7.0], [1.0, 0.0, 0.0, 1.0, 5.0]],
    "no motion": [[3.0, 40.0, 50.0, 0.0, 0.0], [1.0, 30.0, 20.0, 0.0, 0.0]],
    "infinite": [[INF, 40.0, 50.0, 2.0, 7.0], [1.0, 30.0, 20.0, 1.0, 5.0]],
    "not a number": [[3.0, NAN, 50.0, 2.0, NAN], [1.0, 30.0, 20.0, 1.0, 5.0]],
}
OTHER_LOCATION = [[2.0, 35.0, 45.0, 5.0, 6.0], [1.5, 25.0, 30.0, 2.5, 4.0]]


# Step, has_previous, in_window; the last computed step was 2.
SITUATIONS = [(5, True, True), (5, True, False), (2, True, True), (5, False, True)]


# Sums, partial sums of each of two samples, situation. The kernel adds 1024 at once, 8 for each
# thread. The last partial sum has each of these 8 positions, and one in a second round.
DECISIONS = [
    *itertools.product(SUMS.values(), (1, 3), SITUATIONS),
    *((SUMS["near"], n, SITUATIONS[0]) for n in (40, 100, 180, 230, 300, 350, 420, 480, 600)),
]


def check_decide(
    driver: EmulatorDriver,
    metric: str,
    apply_moreg: bool,
    sums: list[list[float]],
    partials: int,
    situation: tuple[int, bool, bool],
) -> None:
    thresholds, rates = [0.03, 0.06, 0.125], [8.0, 4.0, 2.0]
    codebook = torch.tensor([thresholds, rates])
    step, has_previous, in_window = situation
    state = torch.tensor([3.0, 2.0, 0.5, 7.0, 9.0, 11.0, 0.25, 13.0, 0.75, 4.0])
    shares = torch.rand(partials, 1) + 0.5
    whole = torch.tensor([OTHER_LOCATION, sums])
    if metric == "cosine":  # As large as the distances of the other metrics.
        whole[..., 0] = whole[..., 1] - whole[..., 0]
    split = whole.unsqueeze(2) * (shares / shares.sum())
    expected = exact_decision(
        state.tolist(),
        split.double().sum(dim=2).tolist(),
        list(zip(thresholds, rates, strict=True)),
        step,
        metric,
        has_previous,
        apply_moreg,
        in_window,
    )
    settings = ops.DecideSettings(metric, apply_moreg)
    decide = partial(ops.decide, has_previous=has_previous, in_window=in_window)
    in_both_orders(driver, decide, state, split, codebook, settings, step)
    assert_decision(state.tolist(), expected, thresholds)
    # Float32 hides float64's rounding, except for neighbours.
    for found, exact in zip(state.tolist(), expected, strict=True):
        assert math.isnan(exact) or found == pytest.approx(exact, rel=EPS, abs=0)


def check_on_a_threshold(driver: EmulatorDriver, metric: str, apply_moreg: bool) -> None:
    """A distance of exactly 1/8 is not below it."""
    first = {"l1": 0.125, "l2": 0.125**2, "cosine": 1 - 0.125}[metric]
    sums = torch.tensor([[[[first, 1.0, 1.0, 2.0, 7.0]]]])
    state, codebook = ops.new_state("cpu"), torch.tensor([[0.125, 0.25, 0.5], [6.0, 4.0, 2.0]])
    settings = ops.DecideSettings(metric, apply_moreg)
    in_both_orders(driver, ops.decide, state, sums, codebook, settings, 1)
    assert state[ops.State.DISTANCE] == 0.125
    assert state[ops.State.RATE] == 4
