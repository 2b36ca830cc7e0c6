"""Arenas on devices that this machine lacks: their calls of torch, recorded by mocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels import _native
from adacache_kernels.memory import arena, torch_arena
from adacache_kernels.memory.arena import Lease
from adacache_kernels.memory.torch_arena import TorchArena
from tests.support.arenas import byte_spec, make_arena

CUDA = torch.device("cuda", 1)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Replace `torch.cuda` by a mock of the functions that an arena calls."""
    stand_in = mock.Mock(spec_set=["current_stream", "empty_cache", "is_current_stream_capturing"])
    stand_in.is_current_stream_capturing.return_value = False
    stand_in.current_stream.return_value = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch, "cuda", stand_in)
    return stand_in


def refusing(*errors: Exception) -> Any:
    """Return a compiled lease that raises these errors, then allocates one byte."""
    slot = torch.zeros(1, dtype=torch.uint8)
    return mock.Mock(grow=mock.Mock(side_effect=[*errors, [slot]]))


def test_torch_gives_its_cache_back_once(cuda: mock.Mock) -> None:
    out_of_memory = _native.module().OutOfMemory
    native = refusing(out_of_memory("first"))
    assert len(Lease(native, CUDA).tensors([byte_spec(1)])) == 1
    assert native.grow.call_args_list == [mock.call([1], 77)] * 2
    cuda.empty_cache.assert_called_once_with()
    with pytest.raises(ak.memory.ArenaOutOfMemoryError, match="third"):
        Lease(refusing(*map(out_of_memory, ("second", "third"))), CUDA).tensors([byte_spec(1)])


def test_a_budget_error_does_not_empty_the_cache(cuda: mock.Mock) -> None:
    with pytest.raises(ak.memory.OverBudgetError, match="too much"):
        Lease(refusing(_native.module().OverBudget("too much")), CUDA).tensors([byte_spec(1)])
    cuda.empty_cache.assert_not_called()


def test_the_cache_stays_during_a_capture(cuda: mock.Mock) -> None:
    cuda.is_current_stream_capturing.return_value = True
    with pytest.raises(ak.memory.ArenaOutOfMemoryError, match="none left"):
        Lease(refusing(_native.module().OutOfMemory("none left")), CUDA).tensors([byte_spec(1)])
    cuda.empty_cache.assert_not_called()


@pytest.mark.parametrize("call", ["release", "acquire", "mark"])
def test_calls_are_for_the_current_stream(cuda: mock.Mock, call: str) -> None:
    native = mock.Mock()
    getattr(Lease(native, CUDA), call)()
    getattr(native, call).assert_called_once_with(77)
    cuda.current_stream.assert_called_once_with(CUDA)


def test_errors_of_a_capture_are_those_of_the_package() -> None:
    native = refusing(_native.module().CaptureError("reserve before"))
    with pytest.raises(ak.memory.CaptureError, match="reserve before"):
        Lease(native, torch.device("cpu")).tensors([byte_spec(1)])


class Stream:
    """A stream as in `torch.cuda` or `torch.xpu`."""

    def __init__(self) -> None:
        self.waited: list[object] = []

    def record_event(self) -> object:
        return ("event of", id(self))

    def wait_event(self, event: object) -> None:
        self.waited.append(event)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Give a torch arena on the CPU two streams; `now` is the current one."""
    state = SimpleNamespace(now=Stream(), other=Stream(), capturing=False, recorded=[])
    monkeypatch.setattr(torch_arena, "_current_stream", lambda device: state.now)
    monkeypatch.setattr(torch_arena, "_is_capturing", lambda device: state.capturing)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: state.recorded.append(stream)
    )
    return state


def test_a_torch_arena_waits_for_other_streams(streams: SimpleNamespace) -> None:
    lease = make_arena("torch").lease()
    lease.tensors([byte_spec(10)])
    first = streams.now
    lease.mark()
    lease.acquire()
    assert (first.waited, streams.recorded) == ([], [first])
    streams.now = streams.other
    lease.acquire()
    assert streams.other.waited == [first.record_event()]


def test_a_torch_arena_allocates_nothing_during_a_capture(streams: SimpleNamespace) -> None:
    arena = make_arena("torch")
    lease = arena.lease()
    lease.tensors([byte_spec(600)])
    lease.mark()
    streams.capturing = True
    lease.replan([byte_spec(700)])  # Both plans need 768 bytes.
    with pytest.raises(
        ak.memory.CaptureError, match=r"bytes would have to be .* reserve them before"
    ):
        lease.tensors([byte_spec(1)])
    assert (arena.stats().mapped, arena.stats().slots) == (768, 1)


def test_a_torch_arena_waits_for_nothing_outside_of_a_capture(streams: SimpleNamespace) -> None:
    lease = make_arena("torch").lease()
    lease.tensors([byte_spec(10)])
    lease.mark()
    streams.capturing = True
    lease.acquire()
    streams.now = streams.other
    lease.mark()  # Records nothing.
    assert len(streams.recorded) == 1
    with pytest.raises(ak.memory.CaptureError, match=r"call acquire\(\) before"):
        lease.acquire()


def test_hip_gets_a_torch_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert isinstance(arena._make_arena(CUDA, 100, 10), TorchArena)


def test_a_device_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = make_arena("torch")
    lease = arena.lease()
    monkeypatch.setattr(torch, "empty", mock.Mock(side_effect=torch.OutOfMemoryError("card full")))
    with pytest.raises(
        ak.memory.ArenaOutOfMemoryError, match=r"card full.* Of 67108864 bytes of budget"
    ):
        lease.tensors([byte_spec(10)])
    assert (arena.stats().failures, arena.stats().mapped) == (1, 0)
