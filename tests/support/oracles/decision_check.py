"""Comparison of a decision with that of the oracle."""

from __future__ import annotations

import math

import torch

from adacache_kernels import ops

EPS = torch.finfo(torch.float32).eps


def assert_decision(state: list[float], expected: list[float], thresholds: list[float]) -> None:
    """Compare up to the rounding of float32, and of float64 in another order."""
    fields = ops.State
    close = {"rel_tol": 4 * EPS, "abs_tol": 1e-6}
    for field in (fields.DISTANCE, fields.RAW_DISTANCE, fields.MOTION, fields.PREVIOUS_MOTION):
        expected_float = float(torch.tensor(expected[field], dtype=torch.float64).float())
        both_nan = math.isnan(state[field]) and math.isnan(expected_float)
        assert both_nan or math.isclose(state[field], expected_float, **close), field
    assert state[fields.STEP] == expected[fields.STEP]
    assert state[fields.FLAGS] == expected[fields.FLAGS]
    on_a_threshold = any(math.isclose(expected[fields.DISTANCE], t, **close) for t in thresholds)
    assert on_a_threshold or state[fields.RATE] == expected[fields.RATE]
    assert state[fields.NEXT_STEP] == state[fields.STEP] + state[fields.RATE]
