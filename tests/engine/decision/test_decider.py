"""The decider: decisions are read once, and tensors keep their addresses."""

from __future__ import annotations

import torch

from adacache_kernels import AdaCacheConfig, ops
from adacache_kernels.engine.decision.decider import Decider
from adacache_kernels.schedule.codebook import Codebook

CPU = torch.device("cpu")
SHORT, LONG = Codebook((0.5, 1.0), (2, 1)), Codebook((0.5, 1.0), (4, 1))
WINDOW = (1, 0)
SUMS = torch.tensor([[[[1.0, 8.0, 0.0]]]])


def test_a_decision_is_read_once() -> None:
    decider = Decider(AdaCacheConfig())
    decider.restart(SHORT, WINDOW)
    assert decider.read() is None
    decider.decide(SUMS, 1, 1, has_previous=False)
    read = decider.read()
    assert read is not None and (read[0].step, read[0].rate, read[0].distance) == (1, 1, None)
    assert decider.read() is None
    decider.decide(SUMS, 2, 1, has_previous=True)
    read = decider.read()
    assert read is not None and (read[0].step, read[0].rate, read[0].distance) == (2, 2, 0.125)


def test_an_unread_decision_does_not_outlive_its_generation() -> None:
    decider = Decider(AdaCacheConfig())
    decider.restart(SHORT, WINDOW)
    decider.decide(SUMS, 1, 1, has_previous=False)
    decider.restart(SHORT, WINDOW)
    assert decider.read() is None
    assert decider.state_on(CPU).state[ops.State.STEP] == 0


def test_tensors_keep_their_addresses_while_codebooks_change() -> None:
    """Captured graphs contain these addresses: a number of steps may come again after another."""
    decider = Decider(AdaCacheConfig(batch="any", apply_moreg=True))
    decider.restart(SHORT, WINDOW)
    on_device = decider.state_on(CPU)
    tensors = (on_device.state, on_device.codebook_tensor(SHORT), on_device.motions(2))
    decider.restart(LONG, WINDOW)
    assert decider.state_on(CPU).codebook_tensor(LONG).tolist() == [[0.5, 1.0], [4.0, 1.0]]
    decider.restart(SHORT, WINDOW)
    again = decider.state_on(CPU)
    now = (again.state, again.codebook_tensor(SHORT), again.motions(2))
    assert again is on_device and all(a is b for a, b in zip(tensors, now, strict=True))
