"""The compiled mailbox in Python: on the host, and on a device of the driver stub.

csrc/mailbox/design.md lists the invariants M1 to M6.
"""

from __future__ import annotations

import array
from pathlib import Path

import pytest

from adacache_kernels import _native
from adacache_kernels.memory.errors import ArenaError, package_errors
from tests.support.driver_scripts import Run, elementwise_kernel, script_runner

HOST = -1


def state(first: float, last: float | None = None) -> array.array[float]:
    middle = [first + 0.5 * index for index in range(1, 9)]
    return array.array("f", [first, *middle, first if last is None else last])


def post(box: object, sequence: int, sent: array.array[float]) -> None:
    address, _ = sent.buffer_info()
    box.post(0, address, sequence)  # type: ignore[attr-defined]


def test_a_message_of_the_host_is_there_at_once() -> None:
    """M1, M2"""
    box = _native.module().Mailbox(HOST)
    for sequence in range(1, 12):
        sent = state(sequence)
        post(box, sequence, sent)
        expected, sent[3] = list(sent), -1.0
        assert box.arrived(sequence)
        assert box.collect(sequence) == (expected, 0.0)


def test_four_messages_are_stored() -> None:
    """M3"""
    box = _native.module().Mailbox(HOST)
    for sequence in (1, 2, 3, 4, 5):
        post(box, sequence, state(sequence))
    stored = r"decision 1 is not in the mailbox.* 5, 2, 3, 4"
    with pytest.raises(ArenaError, match=stored), package_errors():
        box.collect(1)
    assert [box.collect(sequence)[0][0] for sequence in (2, 3, 4, 5)] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (7.0, 7.0, "stale message: it holds decision 7"),
        (8.0, 7.0, "torn message"),
        (7.0, 8.0, "torn"),
    ],
)
def test_another_decision_is_never_returned(first: float, last: float, message: str) -> None:
    """M2"""
    box = _native.module().Mailbox(HOST)
    post(box, 8, state(first, last))
    with pytest.raises(ArenaError, match=message), package_errors():
        box.collect(8)


def test_sequence_numbers_beyond_float32_are_refused() -> None:
    """M4"""
    box = _native.module().Mailbox(HOST)
    with pytest.raises(ValueError, match="16777216, expected less than 16777216"):
        post(box, 1 << 24, state(0))
    with pytest.raises(ValueError, match="address of the state of a decision is 0"):
        box.post(0, 0, 1)


END = """
del box
assert device.driver.fakecuda_live(b"pinned") == device.driver.fakecuda_live(b"events") == 0
"""

DECIDE = ".version 8.3\n.target sm_80\n.address_size 64\n"
DECIDE += elementwise_kernel("decide", "add.f32 %f2, %f1, 0f3F800000;")  # x + 1


@pytest.fixture
def run(driver: Path) -> Run:
    """Return a function that runs a script on the driver stub."""
    return script_runner(driver, end=END)


@pytest.mark.parametrize("pace", ["fast", "slow", "random:1", "random:2"])
def test_decisions_of_kernels(run: Run, pace: str) -> None:
    """M1, M2: each message holds the decision of its step, though the next one overwrites it."""
    code = f"""
decide = device.kernel({DECIDE!r}, "decide")
state, stream = device.array([0] * 10, "float32"), device.stream()
box = native.Mailbox(0)
waits, waited = device.driver.fakecuda_waits, 0
start = waits()
for step in range(1, 31):
    device.launch(decide, stream, 10, state)
    before = waits()
    box.post(stream, state.ctypes.data, 2 * step - 1)
    device.launch(decide, stream, 10, state)
    assert waits() == before
    there = box.arrived(2 * step - 1)
    message, seconds = box.collect(2 * step - 1)
    assert message == [2 * step - 1] * 10 and not (there and seconds)
    assert waits() - before == (seconds > 0)
    waited += seconds > 0
assert waits() - start == waited
assert waited == {{"fast": 0, "slow": 30}}.get({pace!r}, waited)
device.synchronize(stream)
assert device.ran == ["decide"] * 60
"""
    run(code, PACE=pace)


def test_no_post_during_a_capture(run: Run) -> None:
    """M6"""
    code = """
state, box = device.array([0] * 10, "float32"), native.Mailbox(0)
with device.captured() as (stream, graphs):
    try:
        box.post(stream, state.ctypes.data, 1)
    except native.CaptureError as error:
        assert "use decision='graph'" in str(error)
    else:
        raise AssertionError
assert device.driver.cuGraphDestroy(ctypes.c_void_p(graphs[0])) == 0
"""
    run(code)


def test_other_threads_run_while_one_waits(run: Run) -> None:
    code = """
state, stream, box = device.array([1] * 10, "float32"), device.stream(), native.Mailbox(0)
usleep = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p)
device.call("cuLaunchHostFunc", ctypes.c_void_p(stream), usleep, ctypes.c_void_p(300_000))
box.post(stream, state.ctypes.data, 1)
counted, collected = 0, []
waiting = threading.Thread(target=lambda: collected.append(box.collect(1)))
waiting.start()
while not collected:
    counted += 1
waiting.join()
assert collected[0][1] > 0.2 and counted > 1000, (collected, counted)
"""
    run(code, PACE="slow")
