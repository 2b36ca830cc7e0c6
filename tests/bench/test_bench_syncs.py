"""Test the table of waits and graph breaks: its counts for this package and for others."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from bench.runtime import host_sync_peers as sync_peers
from bench.runtime import host_syncs as syncs
from tests.support import cuda_tensor_spy as fake_cuda

METHODS = {method.name: method for method in sync_peers.METHODS}
WAITING = {"FirstBlockCache": 1, "PyramidAttentionBroadcast": 48, "cache-dit DBCache": 1}
pytestmark = [
    pytest.mark.skipif(fake_cuda.why_not() is not None, reason=str(fake_cuda.why_not())),
    # The mailbox gets the address of a state; here the address is 0, and a double receives it.
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ["unpatched", "adacache_kernels, fast"])
def test_no_waits_and_one_graph(name: str) -> None:
    steps = syncs.steps_of(METHODS[name])
    assert [step.waits for step in steps] == [0] * sync_peers.STEPS
    assert (len({step.products for step in steps}) == 2) == (name != "unpatched")
    breaks = syncs.breaks_of(METHODS[name], blocks=True)
    assert (breaks.graphs, breaks.breaks) == (1, 0)


@pytest.mark.parametrize(("name", "most"), WAITING.items(), ids=WAITING)
def test_waits_of_others_are_counted(name: str, most: int) -> None:
    if not METHODS[name].is_installed:
        pytest.skip(f"{METHODS[name].package} is not installed: pip install '.[peers]'")
    steps = syncs.steps_of(METHODS[name])
    whole = max(step.products for step in steps)
    reused = [step.waits for step in steps if step.products < whole]
    assert set(reused) == {most}


def test_breaks_are_counted() -> None:
    breaks = syncs.breaks_of(METHODS["FirstBlockCache"], blocks=True)
    assert breaks.breaks >= breaks.disabled >= 1
    assert breaks.graphs > 1


def test_a_row_of_what_cannot_run() -> None:
    """A method that is missing and a method that fails have a row each."""

    def fail(model: object, now: object) -> None:
        raise NotImplementedError("not on this model\nat all")

    absent = sync_peers.Method("absent", fail, "diffusers", needs="NoSuchCache")
    assert "not in the diffusers installed" in syncs.row(absent, 1)
    failing = sync_peers.Method("failing", fail)
    cell = syncs.breaks_or_why_not(failing, blocks=True)
    assert cell == "NotImplementedError: not on this model"


def test_spans() -> None:
    assert [syncs.span(counts) for counts in ([], [1, 1], [2, 0, 1])] == ["-", "1", "0 to 2"]
