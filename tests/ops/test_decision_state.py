"""The state of a decision: its fields, its sequence numbers, its clock, and its way to the host."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from adacache_kernels import ops
from adacache_kernels.engine.decision import decider, mailbox
from adacache_kernels.engine.decision.mailbox import DecisionMessage, Mailbox
from adacache_kernels.ops import reference
from adacache_kernels.ops.decide_settings import DecideStep
from tests import ROOT
from tests.support.ptx_emulator import EmulatorDriver, emulated
from tests.support.tiny_models.common_models import FOUR, TINY, denoise

BACKENDS = ["auto", "reference"]
BOOK = torch.tensor([[0.125, 0.25], [6.0, 4.0]])
MOREG = ops.DecideSettings(apply_moreg=True)
SUMS = torch.tensor([[[[1.0, 8.0, 0.0, 1.0, 4.0]]]])


def decided(step: int, *, clock: Tensor | None, **situation: Any) -> Tensor:
    state = ops.new_state("cpu")
    state[ops.State.STEP] = 2
    state[ops.State.PREVIOUS_MOTION] = 0.5
    ops.decide(state, SUMS, BOOK, MOREG, step, sequence=9, clock=clock, **situation)
    return state


def check_clock() -> None:
    """Check that the clock gives the same state as the arguments, in every situation."""
    for has_previous, in_window in itertools.product([False, True], repeat=2):
        situation = {"has_previous": has_previous, "in_window": in_window}
        clock = torch.tensor([5.0, float(has_previous), float(in_window)])
        by_clock = decided(1, clock=clock, has_previous=True, in_window=True)
        by_host = decided(5, clock=None, **situation)
        assert torch.equal(by_clock.nan_to_num(-1), by_host.nan_to_num(-1)), situation
        assert by_host[ops.State.SEQUENCE] == by_host[ops.State.SEQUENCE_AGAIN] == 9


@pytest.mark.parametrize("backend", BACKENDS)
def test_clock(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", backend)
    check_clock()


def test_clock_on_triton(emulator: EmulatorDriver) -> None:
    check_clock()
    assert {launch.name for launch in emulator.launches} == {"decide_kernel"}


def check_begin_step() -> None:
    """Check steps: 3 to 8 may be reused, the next computed one is 6; the window is 2 to 4."""
    state, clock = ops.new_state("cpu"), ops.new_step_state("cpu")
    flags = torch.zeros(2, dtype=torch.int32)
    for step in range(1, 11):
        ops.begin_step(clock, flags, state, (3, 8), (2, 4))
        computes = step not in (3, 4, 5, 8)
        assert flags.tolist() == [computes, not computes], step
        assert clock.tolist() == [step, step > 2, 2 <= step <= 4]
        if step in (2, 7):
            state[ops.State.STEP], state[ops.State.NEXT_STEP] = step, {2: 6, 7: 10}[step]


@pytest.mark.parametrize("backend", BACKENDS)
def test_begin_step(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", backend)
    check_begin_step()


def test_begin_step_on_triton(emulator: EmulatorDriver) -> None:
    check_begin_step()
    assert {launch.name for launch in emulator.launches} == {"begin_step_kernel"}


@pytest.mark.parametrize(
    ("clock", "flags", "named"),
    [
        (torch.zeros(3), torch.zeros(2), "flags"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32), "clock"),
        (torch.zeros(3), torch.zeros(1, dtype=torch.int32), "flags"),
    ],
)
def test_begin_step_refuses(clock: Tensor, flags: Tensor, named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        ops.begin_step(clock, flags, ops.new_state("cpu"), (1, 2), (1, 2))


def test_numbers_have_an_end() -> None:
    for sequence in (-1, ops.SEQUENCES):
        with pytest.raises(ValueError, match=f"sequence is {sequence}, expected 0 to 16777215"):
            ops.decide(ops.new_state("cpu"), SUMS, BOOK, MOREG, 1, sequence=sequence)
    state = ops.new_state("cpu")
    ops.decide(state, SUMS, BOOK, MOREG, 1, sequence=ops.SEQUENCES - 1)
    assert state[ops.State.SEQUENCE] == ops.SEQUENCES - 1


def test_a_state_that_is_reset_is_new() -> None:
    state = decided(5, clock=None)
    ops.reset_state(state)
    assert torch.equal(state.nan_to_num(-1), ops.new_state("cpu").nan_to_num(-1))


def members_in_cpp(name: str) -> list[tuple[str, int]]:
    """Return name and value of each member of an enum in csrc/ops.hpp, as Python writes them."""
    source = (ROOT / "csrc/ops.hpp").read_text()
    found = re.search(rf"enum (?:class )?{name} {{([^}}]*)}}", source)
    assert found is not None, name
    members = []
    for member in filter(None, (part.strip() for part in found[1].split(","))):
        word, _, value = member.partition(" = ")
        name_in_python = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.removeprefix("k")).upper()
        members.append((name_in_python, int(value) if value else len(members)))
    return members


@pytest.mark.parametrize(("name", "enum"), [("StateField", ops.State), ("Flag", ops.Flag)])
def test_fields_are_those_of_the_compiled_code(name: str, enum: type[IntEnum]) -> None:
    assert members_in_cpp(name) == [(member.name, member.value) for member in enum]


@pytest.mark.parametrize(
    ("name", "names"), [("Metric", ops.METRICS), ("SlotHolds", ops.SLOT_HOLDS)]
)
def test_names_are_those_of_the_compiled_code(name: str, names: tuple[str, ...]) -> None:
    assert members_in_cpp(name) == [(each.upper(), code) for code, each in enumerate(names)]


@pytest.mark.parametrize("backend", [*BACKENDS, "triton"])
def test_every_backend_writes_the_same_fields(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most fields have a value of their own."""
    monkeypatch.setenv("ADACACHE_BACKEND", backend)
    state = ops.new_state("cpu")
    state[ops.State.STEP], state[ops.State.PREVIOUS_MOTION] = 2, 0.5
    settings = ops.DecideSettings(apply_moreg=True, moreg_a=1.0, moreg_b=1.0, mograd_mul=4.0)
    with emulated(90):
        ops.decide(state, SUMS, BOOK, settings, 4, in_window=True, sequence=9)
    raw, score = 1 / 8 / 2, 1 / 4
    distance = raw * (score + 4 * (0.5 - score) / 2)
    expected = {
        ops.State.SEQUENCE: 9,
        ops.State.STEP: 4,
        ops.State.DISTANCE: distance,
        ops.State.MOTION: score,
        ops.State.RATE: 6,
        ops.State.NEXT_STEP: 10,
        ops.State.PREVIOUS_MOTION: score,
        ops.State.FLAGS: 0,
        ops.State.RAW_DISTANCE: raw,
        ops.State.SEQUENCE_AGAIN: 9,
    }
    assert state.tolist() == [expected[field] for field in ops.State]


@dataclass
class Device:
    """A double of the torch device module for `TorchMailbox`; events are reached at a wait."""

    reached: bool = False
    waits: int = 0
    events: list[Any] = field(default_factory=list)

    def Event(self) -> Any:
        event = SimpleNamespace(
            record=lambda stream: None, query=lambda: self.reached, synchronize=self._wait
        )
        self.events.append(event)
        return event

    def current_stream(self, device: torch.device) -> None:
        return None

    def _wait(self) -> None:
        self.waits += 1
        time.sleep(0.01)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device()
    monkeypatch.setattr(torch, "get_device_module", lambda device: made)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device, pin_memory: zeros(*size))
    yield made


def message(sequence: float, again: float | None = None) -> Tensor:
    state = torch.arange(10.0)
    state[0], state[-1] = sequence, sequence if again is None else again
    return state


def test_the_host_waits_for_a_message_if_the_device_is_behind(device: Device) -> None:
    box = mailbox.TorchMailbox(torch.device("xpu"))
    box.post(message(7), 7)
    found = box.collect(7)
    assert found is not None and found.state == message(7).tolist()
    assert device.waits == 1 and found.waited >= 0.01
    device.reached = True
    found = box.collect(7)
    assert found is not None and found.waited == 0
    assert device.waits == 1


def test_messages_stay_for_some_time(device: Device) -> None:
    box = mailbox.TorchMailbox(torch.device("xpu"))
    for sequence in range(1, 1 + mailbox.SLOTS):
        box.post(message(sequence), sequence)
    assert [box.collect(n).state[0] for n in (1, 2, 3, 4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("state", "found"),
    [(message(6), "6 to 6"), (message(7, 6), "7 to 6"), (message(6, 7), "6 to 7")],
)
@pytest.mark.parametrize("kind", ["torch", "direct"])
def test_a_stale_or_torn_message_is_never_used(
    kind: str, state: Tensor, found: str, device: Device
) -> None:
    box: Mailbox = mailbox.DirectMailbox()
    if kind == "torch":
        box = mailbox.TorchMailbox(torch.device("xpu"))
    box.post(state, 7)
    with pytest.raises(RuntimeError, match=f"holds decision {found} where 7 was asked for"):
        box.collect(7)


@pytest.mark.parametrize(
    ("device_type", "mode", "kind"),
    [
        ("cpu", "async", mailbox.DirectMailbox),
        ("cpu", "sync", mailbox.DirectMailbox),
        ("cuda", "sync", mailbox.DirectMailbox),
        ("xpu", "async", mailbox.TorchMailbox),
        ("cuda", "graph", mailbox.NoMailbox),
    ],
)
def test_which_mailbox(device_type: str, mode: Any, kind: type, device: Device) -> None:
    assert type(mailbox.make_mailbox(torch.device(device_type), mode)) is kind


class Late(mailbox.DirectMailbox):
    """A mailbox that reports a host wait for every message."""

    def collect(self, sequence: int) -> DecisionMessage:
        return DecisionMessage(super().collect(sequence).state, 0.25)


@pytest.mark.parametrize("name", FOUR)
def test_waits_are_counted_and_change_no_schedule(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, settings = TINY[name], {"codebook": {0.05: 4, 1e9: 2}, "num_inference_steps": 20}
    by_host = ak.patch(tiny.build(), **settings, decision="sync")
    denoise(tiny, by_host, 20)
    monkeypatch.setattr(decider, "make_mailbox", lambda device, mode: Late())
    model = ak.patch(tiny.build(), **settings)
    denoise(tiny, model, 20)
    summary, expected = ak.summary(model), ak.summary(by_host)
    assert summary.computed_steps == expected.computed_steps
    assert summary.rates == expected.rates
    assert expected.waits == []
    # One for each decision, which the host reads when the next step begins.
    assert summary.waits == [0.25] * len(summary.computed_steps)
    assert f"waits     {len(summary.waits)}, {250 * len(summary.waits):.1f} ms" in str(summary)


def test_the_reference_decides_without_a_clock_as_before() -> None:
    state = ops.new_state("cpu")
    reference.decide(state, SUMS, BOOK, ops.DecideSettings(), DecideStep(1))
    assert state[ops.State.DISTANCE] == 0.125


def test_an_unknown_decision_mode() -> None:
    with pytest.raises(ValueError, match=r"decision is 'later'; it may be one of 'async', 'sync'"):
        ak.AdaCacheConfig(decision="later")  # type: ignore[arg-type]
