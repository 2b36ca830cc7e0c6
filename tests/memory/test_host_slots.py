"""Residuals in host memory equal those on the device, in any order of the queues."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adacache_kernels.memory import host_slots
from adacache_kernels.memory.chunk_layout import ChunkLayout
from adacache_kernels.memory.copy_stream import DirectCopies
from adacache_kernels.memory.device_constants import DeviceConstants
from adacache_kernels.memory.device_slots import DeviceSlots, ResidualWrite
from adacache_kernels.memory.host_slots import HostSlots
from tests.support.stream_simulator import TwoQueues

SHAPE = (2, 3, 7, 16)
DTYPES = {None: torch.float32, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
KEYS = [("residual", 0, "blocks", 0, ring_index) for ring_index in range(3)]


def split(x: torch.Tensor) -> torch.Tensor:
    return x.view(*SHAPE[:3], -1)


def on_host(copies, dtype: str | None = None, max_bytes: int = 2 * 2 * 3 * 16 * 4) -> HostSlots:
    """Return slots in chunks of two tokens in float32, or of more tokens in eight bits."""
    chunks = ChunkLayout(SHAPE, DTYPES[dtype], has_scale=dtype is not None, max_bytes=max_bytes)
    tensors = {key: torch.empty(chunks.nbytes, dtype=torch.uint8) for key in KEYS}
    staging = [[torch.empty(chunks.largest, dtype=torch.uint8) for _ in KEYS] for _ in range(2)]
    return HostSlots(tensors, dict.fromkeys(KEYS, chunks), staging, copies, DeviceConstants())


def on_device(dtype: str | None = None) -> DeviceSlots:
    flat = (SHAPE[0], SHAPE[1] * SHAPE[2], SHAPE[3])
    tensors = {key: torch.empty(flat, dtype=DTYPES[dtype]) for key in KEYS}
    if dtype is not None:
        tensors |= {("scale", *key): torch.empty(*flat[:-1], 1) for key in KEYS}
    return DeviceSlots(tensors)


def stream() -> torch.Tensor:
    return torch.randn(SHAPE[0], SHAPE[1] * SHAPE[2], SHAPE[3])


@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 4),
    tokens=st.integers(1, 30),
    channels=st.integers(1, 20),
    dtype=st.sampled_from(list(DTYPES)),
    max_bytes=st.integers(1, 5000),
)
def test_chunks_cover_every_token_once_and_lie_apart(
    batch, frames, tokens, channels, dtype, max_bytes
) -> None:
    shape = (batch, frames, tokens, channels)
    chunks = ChunkLayout(shape, DTYPES[dtype], dtype is not None, max_bytes)
    buffer = torch.zeros(chunks.nbytes, dtype=torch.uint8)
    covered = []
    for index in range(chunks.count):
        first, count = chunks.tokens(index)
        covered += range(first, first + count)
        start, end = chunks.extent(index)
        assert start % 256 == 0 and end - start <= chunks.largest
        values, scale = chunks.views(buffer[start:end], index)
        assert values.shape == (batch, frames, count, channels)
        values.view(torch.uint8).add_(1)
        if dtype is not None:
            assert scale is not None and scale.shape == (batch, frames, count, 1)
            scale.view(torch.uint8).add_(1)
    assert covered == list(range(tokens))
    # Every byte was written exactly once.
    size = torch.Size(shape).numel() * DTYPES[dtype].itemsize
    scales = 4 * batch * frames * tokens if dtype is not None else 0
    assert buffer.max() == 1 and buffer.sum() == size + scales


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_an_add_from_the_host_equals_one_on_the_device_bit_for_bit(dtype) -> None:
    host, device = on_host(DirectCopies(), dtype), on_device(dtype)
    streams = [(stream(), stream()) for _ in KEYS]
    for slots in (host, device):
        for key, (x_out, x_in) in zip(KEYS, streams, strict=True):
            slots.update(key, ResidualWrite(x_out, x_in, split))
    x = stream()
    added, before = [], x.clone()
    for slots in (host, device):
        added.append(torch.empty_like(x))
        slots.add(added[-1], x, KEYS, (2.0, -0.5, 1.25), split)
        added.append(x.clone())
        slots.add(added[-1], added[-1], KEYS, (2.0, -0.5, 1.25), split)
        assert torch.equal(x, before)
    assert all(torch.equal(added[0], other) for other in added)
    assert not torch.equal(added[0], x)
    assert torch.equal(host.read(KEYS[1], split), device.read(KEYS[1], split))


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("holds", ["nothing", "previous"])
def test_a_comparison_from_the_host_equals_one_on_the_device(dtype, holds) -> None:
    host, device = on_host(DirectCopies(), dtype), on_device(dtype)
    streams = [(stream(), stream()) for _ in range(4)]
    sums = []
    for slots in (host, device):
        for key, (x_out, x_in) in zip(KEYS, streams, strict=False):
            slots.update(key, ResidualWrite(x_out, x_in, split))
        update = ResidualWrite(
            *streams[3],
            split,
            holds,
            previous=KEYS[1:],
            coefficients=(3.0, -3.0, 1.0)[: 2 + (holds == "previous")],
            strides=(1, 2),
        )
        sums.append(slots.update(KEYS[0], update).double().sum(1))
    # The terms are the same; each of some 200 partial sums is rounded to float32 once.
    torch.testing.assert_close(*sums, rtol=2**-20, atol=0)
    assert torch.equal(host.read(KEYS[0], split), device.read(KEYS[0], split))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_that_the_waits_allow_gives_the_same(seed) -> None:
    outcomes = []
    torch.manual_seed(0)
    streams = [(stream(), stream()) for _ in range(5)]
    x = stream()
    for queues in (None, TwoQueues(seed)):
        with pytest.MonkeyPatch.context() as patch:
            if queues is not None:
                patch.setattr(host_slots, "ops", queues.ops)
            slots = on_host(queues or DirectCopies())
            added = [torch.empty_like(x) for _ in range(3)]
            for key, (x_out, x_in) in zip(KEYS, streams, strict=False):
                slots.update(key, ResidualWrite(x_out, x_in, split))
            slots.prefetch(KEYS[:2])
            slots.add(added[0], x, KEYS[:2], (2.0, -1.0), split)
            slots.update(
                KEYS[2], ResidualWrite(*streams[3], split, "previous", KEYS[:1], (1.0, 0.5))
            )
            slots.prefetch([KEYS[2]])
            slots.update(KEYS[0], ResidualWrite(*streams[4], split))
            slots.add(added[1], x, KEYS, (1.0, 2.0, 3.0), split)
            slots.add(added[2], x, KEYS[2:], (1.0,), split)
            if queues is not None:
                queues.run()
        outcomes.append([*added, *slots.tensors.values()])
    assert all(itertools.starmap(torch.equal, zip(*outcomes, strict=True)))


def test_slots_made_anew_add_what_was_stored() -> None:
    """A plan that grows makes its slots anew, and a reused step may come next."""
    before = on_host(DirectCopies())
    x_out, x_in = stream(), stream()
    before.update(KEYS[0], ResidualWrite(x_out, x_in, split))
    slots = HostSlots(before.tensors, before.chunks, before.staging, before.copies)
    out = torch.empty_like(x_in)
    slots.add(out, x_in, KEYS[:1], (1.0,), split)
    assert torch.equal(out, x_in + (x_out - x_in))
