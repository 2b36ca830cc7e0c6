"""How the host learns what the device has decided, with the device never waiting for it.

Each decision is numbered. The device writes it to pinned host memory behind an event; the host
looks there when the next step begins, and waits only if the device has not come that far.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ... import _native, ops
from ...options import DecisionMode

PLACES = 4
"""Letters that are kept: none is overwritten before its step is over."""


class DecisionMessage(NamedTuple):
    """A decision as the host has it.

    Args:
        state: as `ops.State` orders it.
        waited: seconds for which the host has waited for the device; 0 if it was there.
    """

    state: list[float]
    waited: float


class Mailbox(Protocol):
    """Where the decisions of one model come in, one after the other."""

    def post(self, state: Tensor, sequence: int) -> None:
        """The current stream has been given the work that makes this the state's decision."""

    def collect(self, sequence: int) -> DecisionMessage | None:
        """The decision of that number, which has been posted; None where the host learns nothing.

        Raises:
            RuntimeError: another one is found, or parts of two: never used, for it would be wrong.
        """


def make_mailbox(device: torch.device, mode: DecisionMode) -> Mailbox:
    """For decisions on `device`; those of a CPU are there as soon as they are made."""
    if mode == "graph":
        return NoMailbox()
    if mode == "sync" or device.type in ("cpu", "mps", "meta"):
        return DirectMailbox()
    if device.type == "cuda" and torch.version.hip is None:
        return NativeMailbox(device)
    return TorchMailbox(device)


class NoMailbox:
    """The device keeps its decisions to itself."""

    def post(self, state: Tensor, sequence: int) -> None:
        """Nothing is sent."""

    def collect(self, sequence: int) -> None:
        """Nothing is learnt."""


class DirectMailbox:
    """Reads the state at once; on a device, that waits for it."""

    def post(self, state: Tensor, sequence: int) -> None:
        begun = time.perf_counter()
        values = state.tolist()
        waited = 0.0 if state.device.type == "cpu" else time.perf_counter() - begun
        self._letter = DecisionMessage(values, waited)

    def collect(self, sequence: int) -> DecisionMessage:
        _check(self._letter.state, sequence)
        return self._letter


class NativeMailbox:
    """Pinned memory and events of NVIDIA's driver, see ``csrc/mailbox``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        index = torch.cuda.current_device() if device.index is None else device.index
        self._native = _native.module().Mailbox(index)

    def post(self, state: Tensor, sequence: int) -> None:
        stream = torch.cuda.current_stream(self._device).cuda_stream
        self._native.post(stream, state.data_ptr(), sequence)

    def collect(self, sequence: int) -> DecisionMessage:
        return DecisionMessage(*self._native.collect(sequence))


class TorchMailbox:
    """The same by torch's own pinned memory and events, for devices of other makers."""

    def __init__(self, device: torch.device) -> None:
        self._module = torch.get_device_module(device)
        self._letters = torch.zeros(PLACES, len(ops.State), device="cpu", pin_memory=True)
        self._events = [self._module.Event() for _ in range(PLACES)]

    def post(self, state: Tensor, sequence: int) -> None:
        place = sequence % PLACES
        self._letters[place].copy_(state, non_blocking=True)
        self._events[place].record(self._module.current_stream(state.device))

    def collect(self, sequence: int) -> DecisionMessage:
        place, waited = sequence % PLACES, 0.0
        if not self._events[place].query():
            begun = time.perf_counter()
            self._events[place].synchronize()
            waited = time.perf_counter() - begun
        values = self._letters[place].tolist()
        _check(values, sequence)
        return DecisionMessage(values, waited)


def _check(values: list[float], sequence: int) -> None:
    first, last = values[ops.State.SEQUENCE], values[ops.State.SEQUENCE_AGAIN]
    if (first, last) != (sequence, sequence):
        raise RuntimeError(
            f"the mailbox holds decision {first:g} to {last:g} where {sequence} was asked for: a "
            "fault of adacache_kernels or of the device; decision='sync' does without a mailbox"
        )
