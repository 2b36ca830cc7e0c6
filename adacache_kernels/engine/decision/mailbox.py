"""Bring the decisions of the device to the host, without the device ever waiting.

Each decision has a sequence number. The device writes the decision to pinned host memory and
records an event. The host looks there when the next step begins, and waits only if the device has
not come that far.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ... import _native, ops
from ...options import DecisionMode

SLOTS = 4
"""Number of stored messages: none is overwritten before its step is over."""


class DecisionMessage(NamedTuple):
    """A decision as the host receives it.

    Args:
        state: the values of the decide op's state, ordered as `ops.State`.
        waited: seconds for which the host waited for the device; 0 if the message was there.
    """

    state: list[float]
    waited: float


class Mailbox(Protocol):
    """Delivers the decisions of one model to the host, in order."""

    def post(self, state: Tensor, sequence: int) -> None:
        """Send the state, after the work that the current stream already has.

        Args:
            state: float32 `[10]`.
            sequence: the sequence number that the state contains.
        """

    def collect(self, sequence: int) -> DecisionMessage | None:
        """Return the message with that sequence number; None if decisions stay on the device.

        Raises:
            RuntimeError: the mailbox contains another decision, or parts of two.
        """


def make_mailbox(device: torch.device, mode: DecisionMode) -> Mailbox:
    """Return a mailbox for decisions that are made on `device`."""
    if mode == "graph":
        return NoMailbox()
    if mode == "sync" or device.type in ("cpu", "mps", "meta"):
        return DirectMailbox()
    if device.type == "cuda" and torch.version.hip is None:
        return NativeMailbox(device)
    return TorchMailbox(device)


class NoMailbox:
    """A mailbox that sends nothing: decisions stay on the device."""

    def post(self, state: Tensor, sequence: int) -> None:
        """Send nothing."""

    def collect(self, sequence: int) -> None:
        """Return None."""


class DirectMailbox:
    """A mailbox that reads the state at once; unless the device is a CPU, the host waits."""

    def __init__(self) -> None:
        self._message: DecisionMessage | None = None

    def post(self, state: Tensor, sequence: int) -> None:
        """Read the state, float32 `[10]`."""
        begun = time.perf_counter()
        values = state.tolist()
        waited = 0.0 if state.device.type == "cpu" else time.perf_counter() - begun
        self._message = DecisionMessage(values, waited)

    def collect(self, sequence: int) -> DecisionMessage:
        """Return the message with that sequence number.

        Raises:
            RuntimeError: the last message has another sequence number.
        """
        assert self._message is not None, "post comes before collect"
        _check_sequence(self._message.state, sequence)
        return self._message


class NativeMailbox:
    """A mailbox on pinned memory and events of NVIDIA's driver, see ``csrc/mailbox``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        index = torch.cuda.current_device() if device.index is None else device.index
        self._native = _native.module().Mailbox(index)

    def post(self, state: Tensor, sequence: int) -> None:
        """Copy the state, float32 `[10]`, after the work of the current stream."""
        stream = torch.cuda.current_stream(self._device).cuda_stream
        self._native.post(stream, state.data_ptr(), sequence)

    def collect(self, sequence: int) -> DecisionMessage:
        """Return the message with that sequence number; wait for it if necessary.

        Raises:
            RuntimeError: the mailbox contains another decision, or parts of two.
        """
        return DecisionMessage(*self._native.collect(sequence))


class TorchMailbox:
    """A mailbox on torch's pinned memory and events, for devices of other makers."""

    def __init__(self, device: torch.device) -> None:
        self._module = torch.get_device_module(device)
        self._messages = torch.zeros(SLOTS, len(ops.State), device="cpu", pin_memory=True)
        self._events = [self._module.Event() for _ in range(SLOTS)]

    def post(self, state: Tensor, sequence: int) -> None:
        """Copy the state, float32 `[10]`, after the work of the current stream."""
        slot = sequence % SLOTS
        self._messages[slot].copy_(state, non_blocking=True)
        self._events[slot].record(self._module.current_stream(state.device))

    def collect(self, sequence: int) -> DecisionMessage:
        """Return the message with that sequence number; wait for it if necessary.

        Raises:
            RuntimeError: the mailbox contains another decision, or parts of two.
        """
        slot, waited = sequence % SLOTS, 0.0
        if not self._events[slot].query():
            begun = time.perf_counter()
            self._events[slot].synchronize()
            waited = time.perf_counter() - begun
        values = self._messages[slot].tolist()
        _check_sequence(values, sequence)
        return DecisionMessage(values, waited)


def _check_sequence(values: list[float], sequence: int) -> None:
    first, last = values[ops.State.SEQUENCE], values[ops.State.SEQUENCE_AGAIN]
    if (first, last) != (sequence, sequence):
        raise RuntimeError(
            f"the mailbox holds decision {first:g} to {last:g} where {sequence} was asked for: an "
            "error in adacache_kernels or in the device; decision='sync' needs no mailbox"
        )
