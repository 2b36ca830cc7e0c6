"""The arena for Python: tensors, budgets, errors and statistics. Both kinds have one contract."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.memory import arena as arena_module
from adacache_kernels.memory.byte_sizes import free_memory, total_memory
from tests.support.arenas import KINDS, MIB, PAGE, byte_spec, extent, make_arena

pytestmark = pytest.mark.filterwarnings("error")

both_kinds = pytest.mark.parametrize("kind", KINDS)
SPECS = [
    ((2, 3, 5), torch.float32),
    ((7,), torch.bfloat16),
    ((), torch.float64),
    ((4, 0, 3), torch.float16),
    ((3, 1), torch.int8),
    ((2, 2), torch.complex64),
    ((9,), torch.float8_e4m3fn),
    ((5,), torch.bool),
]


@both_kinds
def test_tensors_are_as_asked_for(kind: str) -> None:
    lease = make_arena(kind).lease()
    for make_tensors in (lease.tensors, lease.replan):
        tensors = make_tensors(SPECS)
        assert [(tuple(t.shape), t.dtype) for t in tensors] == SPECS
        assert all(t.is_contiguous() and t.device.type == "cpu" for t in tensors)


@both_kinds
def test_memory_of_a_virtual_arena_is_aligned_and_apart(kind: str) -> None:
    tensors = make_arena(kind).lease().tensors([byte_spec(n) for n in (1, 256, 257, 3, 5000)])
    extents = sorted(map(extent, tensors))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(extents))
    if kind == "virtual":  # Tensors on a CPU are aligned to 64 bytes only.
        assert all(start % 256 == 0 for start, _ in extents)


@both_kinds
def test_tensors_made_in_inference_mode_can_be_written_outside(kind: str) -> None:
    with torch.inference_mode():
        (tensor,) = make_arena(kind).lease().tensors([((4,), torch.float32)])
    assert not tensor.is_inference()
    weight = torch.ones(4, requires_grad=True)
    tensor.copy_(torch.arange(4.0))
    (tensor * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 1, 2, 3]


@both_kinds
def test_growth_keeps_addresses_and_bytes(kind: str) -> None:
    lease = make_arena(kind, chunk_bytes=PAGE).lease()
    held = []
    for number in range(1, 20):
        (tensor,) = lease.tensors([byte_spec(number * 300)])
        held.append((tensor.fill_(number), tensor.data_ptr(), number))
    assert all(t.data_ptr() == address and (t == n).all() for t, address, n in held)


@both_kinds
def test_replan_of_the_same_size_maps_nothing(kind: str) -> None:
    arena = make_arena(kind)
    lease = arena.lease()
    specs = [byte_spec(5 * PAGE), byte_spec(3 * PAGE)]
    before = [t.data_ptr() for t in lease.tensors(specs)]
    assert [t.data_ptr() for t in lease.replan(specs)] == before
    assert arena.stats().maps == 1
    assert arena.stats().slots == 2


@both_kinds
def test_empty_tensors_are_counted_as_others(kind: str) -> None:
    arena = make_arena(kind)
    lease = arena.lease()
    for _ in range(3):
        lease.replan([byte_spec(0)])
        assert (arena.stats().slots, arena.stats().mapped) == (1, 0)
    lease.release()
    assert arena.stats().slots == 0


@both_kinds
def test_replan_to_less_gives_memory_back(kind: str) -> None:
    arena = make_arena(kind)
    lease = arena.lease()
    lease.tensors([byte_spec(100 * PAGE)])
    (small,) = lease.replan([byte_spec(2 * PAGE)])
    assert arena.stats().mapped == 2 * PAGE
    assert small.fill_(3).sum() == 6 * PAGE


@both_kinds
def test_first_chunk_is_the_plan_and_later_ones_are_large(kind: str) -> None:
    arena = make_arena(kind, chunk_bytes=8 * PAGE)
    lease = arena.lease()
    lease.tensors([byte_spec(2 * PAGE)])
    assert arena.stats().mapped == 2 * PAGE
    lease.tensors([byte_spec(1)])
    assert arena.stats().mapped == 10 * PAGE
    lease.tensors([byte_spec(7 * PAGE)])
    assert (arena.stats().mapped, arena.stats().chunks) == (10 * PAGE, 2)


@both_kinds
def test_budget_is_kept_and_shared(kind: str) -> None:
    arena = make_arena(kind, max_bytes=64 * PAGE)
    first, second = arena.lease(), arena.lease()
    first_tensors = first.tensors([byte_spec(48 * PAGE)])
    before = dataclasses.replace(arena.stats(), failures=1)
    with pytest.raises(ak.memory.OverBudgetError) as caught:
        second.tensors([byte_spec(16 * PAGE), byte_spec(1)])
    assert arena.stats() == before
    for figure in (16 * PAGE + 256, 48 * PAGE, 64 * PAGE):
        assert re.search(rf"\b{figure}\b|\b{figure + PAGE - 256}\b", str(caught.value)), (
            caught.value
        )
    assert second.tensors([byte_spec(16 * PAGE)])
    assert arena.stats().mapped == 64 * PAGE
    del first_tensors
    first.release()
    assert second.tensors([byte_spec(48 * PAGE)])


@both_kinds
def test_view_counts_against_the_budget(kind: str) -> None:
    arena = make_arena(kind, max_bytes=8 * PAGE)
    lease = arena.lease()
    view = lease.tensors([byte_spec(8 * PAGE)])[0].fill_(7)[5:6]
    lease.release()
    assert arena.stats().mapped == 8 * PAGE
    with pytest.raises(ak.memory.ArenaOutOfMemoryError, match=f"{8 * PAGE}"):
        lease.tensors([byte_spec(1)])
    assert view.tolist() == [7]
    del view
    assert arena.stats().mapped == 0
    assert lease.tensors([byte_spec(8 * PAGE)])


@both_kinds
def test_failed_replan_leaves_an_empty_lease(kind: str) -> None:
    arena = make_arena(kind, max_bytes=8 * PAGE)
    lease = arena.lease()
    lease.tensors([byte_spec(PAGE)])
    with pytest.raises(ak.memory.ArenaOutOfMemoryError):
        lease.replan([byte_spec(9 * PAGE)])
    assert (arena.stats().mapped, arena.stats().slots) == (0, 0)
    assert lease.tensors([byte_spec(8 * PAGE)])


def test_out_of_memory_is_that_of_torch_too() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        make_arena("virtual", max_bytes=PAGE).lease().tensors([byte_spec(2 * PAGE)])
    assert issubclass(ak.memory.ArenaOutOfMemoryError, ak.ArenaError)
    assert issubclass(ak.memory.CaptureError, ak.ArenaError)
    assert issubclass(ak.ArenaError, RuntimeError)


@both_kinds
def test_closed_arena_refuses(kind: str) -> None:
    with make_arena(kind) as arena:
        lease = arena.lease()
        (tensor,) = lease.tensors([byte_spec(10)])
    for refused in (arena.lease, lambda: lease.tensors([byte_spec(1)])):
        with pytest.raises(ak.ArenaError, match="closed"):
            refused()
    tensor.fill_(3)
    lease.release()
    assert tensor.tolist() == [3] * 10
    del tensor
    assert arena.stats().mapped == 0
    arena.close()


@both_kinds
def test_lease_that_is_dropped_gives_back(kind: str) -> None:
    arena = make_arena(kind)
    lease = arena.lease()
    lease.tensors([byte_spec(10)])
    del lease
    now = arena.stats()
    assert (now.mapped, now.in_use, now.slots, now.leases, now.chunks) == (0, 0, 0, 0, 0)
    assert (now.maps, now.unmaps) == (1, 1)
    assert now.peak_mapped >= now.peak_in_use == 256


@both_kinds
def test_stats(kind: str) -> None:
    arena = make_arena(kind, max_bytes=1 << 20)
    lease = arena.lease()
    tensors = lease.tensors([byte_spec(300), byte_spec(PAGE), byte_spec(0)])
    now = arena.stats()
    assert len(tensors) == now.slots == 3
    assert now.in_use == now.peak_in_use == 512 + PAGE
    assert now.in_use <= now.mapped == now.peak_mapped <= now.budget == 1 << 20
    assert now.is_virtual == (now.why_not_virtual == "") == (kind == "virtual")
    assert (now.reserved >= now.budget) == (kind == "virtual")
    assert re.fullmatch(
        r"CacheArena\(device='cpu', max_bytes=1048576: \S+ KiB of 1 MiB mapped in 1 chunks, "
        r"4.5 KiB in use in 3 slots of 1 leases\)",
        repr(arena),
    )


@both_kinds
def test_streams_do_not_matter_on_a_cpu(kind: str) -> None:
    lease = make_arena(kind).lease()
    lease.tensors([byte_spec(10)])
    lease.mark()
    lease.acquire()


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (((2, -1), torch.float32), ValueError, r"shape of a tensor is \(2, -1\), expected no neg"),
        (((2,), "float32"), TypeError, r"is a pair \(shape, dtype\), here it is .*'float32'"),
        ((2, torch.float32), TypeError, r"here it is \(2, torch.float32\)"),
        (torch.float32, TypeError, r"here it is torch.float32"),
        (((2**62, 8), torch.float32), ak.memory.ArenaOutOfMemoryError, str(2**67)),
    ],
)
@both_kinds
def test_specs_that_cannot_be(
    kind: str, spec: tuple[tuple[int, ...], torch.dtype], error: type[Exception], message: str
) -> None:
    arena = make_arena(kind)
    with pytest.raises(error, match=message):
        arena.lease().tensors([byte_spec(1), spec])
    assert arena.stats().mapped == 0


@pytest.mark.parametrize(
    "max_bytes", [0, -1, 0.0, 1.5, -0.5, float("nan"), True, "lots", "0GiB", [1]]
)
def test_budgets_that_cannot_be(max_bytes: int) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(max_bytes)) + ".*expected.*'2GiB'"):
        ak.CacheArena("cpu", max_bytes)


@pytest.mark.parametrize("chunk_bytes", [0, -1, 1.5])
def test_chunk_sizes_that_cannot_be(chunk_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"chunk_bytes is .*, expected a positive number of bytes"):
        ak.CacheArena("cpu", chunk_bytes=chunk_bytes)


def test_budgets() -> None:
    cpu = torch.device("cpu")
    assert ak.CacheArena("cpu", "1.5GB").max_bytes == 1_500_000_000
    assert ak.CacheArena("cpu", 12345).max_bytes == 12345
    assert ak.CacheArena("cpu").max_bytes == total_memory(cpu)
    half = ak.CacheArena("cpu", 0.5).max_bytes
    assert abs(half - free_memory(cpu) / 2) < 0.1 * total_memory(cpu)
    assert ak.CacheArena("cpu:0").device == cpu


def test_other_devices_get_a_torch_arena() -> None:
    made = arena_module._make_arena(torch.device("meta"), 100, 10)
    assert made.stats()["why_not_virtual"].endswith("device of type meta")


def test_no_budget_if_the_device_does_not_report_its_memory() -> None:
    lease = ak.CacheArena("meta").lease()
    assert [slot.shape for slot in lease.tensors([((3, 4), torch.float32)])] == [(3, 4)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_no_cuda_device() -> None:
    with pytest.raises(ak.ArenaError, match=r"on cuda needs a CUDA device.*Use device='cpu'"):
        ak.CacheArena("cuda")


@both_kinds
def test_threads_share_an_arena(kind: str) -> None:
    arena = make_arena(kind, chunk_bytes=PAGE)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            lease = arena.lease()
            tensors = [lease.tensors([byte_spec(700)])[0].fill_(number) for _ in range(10)]
            if any((t != number).any() for t in tensors):
                wrong.append(number)
            lease.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (arena.stats().mapped, arena.stats().leases) == (0, 0)


def test_huge_arena_costs_no_memory() -> None:
    arena = make_arena("virtual", max_bytes=512 * MIB)
    lease = arena.lease()
    (tensor,) = lease.tensors([byte_spec(512 * MIB)])
    tensor[-1] = 5
    assert tensor[-1] == 5


@both_kinds
def test_a_new_arena_has_counted_nothing(kind: str) -> None:
    now = make_arena(kind).stats()
    assert (now.mapped, now.in_use, now.planned) == (0, 0, 0)
    assert (now.chunks, now.slots, now.leases) == (0, 0, 0)
    assert (now.peak_mapped, now.peak_in_use) == (0, 0)
    assert (now.maps, now.unmaps, now.failures) == (0, 0, 0)
