"""decide on a new state, and its motion score."""

from __future__ import annotations

import math

import pytest
import torch

from adacache_kernels import ops

EPS = torch.finfo(torch.float32).eps


def test_new_state_computes_the_first_step() -> None:
    state = ops.new_state("cpu")
    assert state[ops.State.NEXT_STEP] == 1
    sums, codebook = torch.zeros(1, 2, 1, 3), torch.tensor([[0.1], [4.0]])
    ops.decide(state, sums, codebook, ops.DecideSettings(), 1, has_previous=False)
    assert state[ops.State.FLAGS] == ops.Flag.NO_PREVIOUS
    assert state[ops.State.NEXT_STEP] == 2


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5, 8.0, 13.0, -3.0, 1000.0])
def test_any_exponent_of_the_motion_score(exponent: float) -> None:
    state = ops.new_state("cpu")
    sums, codebook = torch.tensor([[[[1.0, 2.0, 0.0, 3.0, 8.0]]]]), torch.tensor([[0.1], [4.0]])
    settings = ops.DecideSettings(apply_moreg=True, moreg_b=exponent, moreg_d=2)
    ops.decide(state, sums, codebook, settings, 1, in_window=True)
    expected = (0.375 / 0.385) ** exponent / 2
    assert math.isclose(state[ops.State.MOTION], expected, rel_tol=2 * EPS)
