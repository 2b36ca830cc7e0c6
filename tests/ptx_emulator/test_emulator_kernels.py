"""Triton kernels on the emulator, against torch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from tests.support.ptx_emulator import (  # noqa: E402
    EmulatorDriver,
    MemoryFault,
    Order,
    RaceError,
    UninitialisedRead,
    emulated,
)
from tests.support.ptx_emulator.ptx_snippets import ARCHES, row_norms, scaled_sum  # noqa: E402


@triton.jit
def int8_round_trip(x_ptr, code_ptr, back_ptr, scale, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    code = tl.floor(tl.div_rn(x, scale) + 0.5)
    code = tl.minimum(tl.maximum(code, -127.0), 127.0).to(tl.int8)
    tl.store(code_ptr + offsets, code, mask=mask)
    tl.store(back_ptr + offsets, code.to(tl.float32) * scale, mask=mask)


@triton.jit
def scalar_recurrence(state_ptr, steps, rate: tl.float64, BARRIER: tl.constexpr = True):
    a = tl.load(state_ptr)
    b = tl.load(state_ptr + 1)
    # All threads load both values, and one thread stores.
    if BARRIER:
        tl.debug_barrier()
    for step in range(steps):
        fresh = tl.sqrt(a * a + rate) / (b + step)
        b = a
        a = fresh
    tl.store(state_ptr, a)
    tl.store(state_ptr + 1, b)


@triton.jit
def to_fp8(x_ptr, out_ptr, back_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(x_ptr + offsets).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, code)
    tl.store(back_ptr + offsets, code.to(tl.float32))


@triton.jit
def cast(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets).to(out_ptr.dtype.element_ty))


@triton.jit
def transposed(x_ptr, out_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + rows[:, None] * COLUMNS + columns[None, :])
    tl.store(out_ptr + columns[:, None] * ROWS + rows[None, :], tl.trans(x))


@triton.jit
def integer_statistics(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0)
    tl.store(out_ptr, tl.sum(x, axis=0))
    tl.store(out_ptr + 1, tl.max(x, axis=0))
    tl.store(out_ptr + 2, tl.sum(x % 7, axis=0))
    tl.store(out_ptr + 3, tl.argmax(x, axis=0))


@triton.jit
def add_pairs(pair, extra, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    total = tl.load(pair[0] + offsets, mask=mask) + tl.load(pair[1] + offsets, mask=mask)
    if extra is not None:
        total += tl.load(extra + offsets, mask=mask)
    tl.store(pair[1] + offsets, total, mask=mask)


@triton.jit
def neighbour_sum(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask)
    following = tl.load(x_ptr + offsets + 1, mask=offsets + 1 < n, other=0.0)
    tl.store(x_ptr + offsets, x + following, mask=mask)


@pytest.fixture(params=ARCHES)
def driver(request: pytest.FixtureRequest) -> Iterator[EmulatorDriver]:
    with emulated(request.param) as emulator:
        yield emulator


def blocks(n: int, size: int) -> tuple[int]:
    return (-(-n // size),)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("n", [4096, 3001])
@pytest.mark.parametrize("order", [None, "reverse", 5])
def test_elementwise(driver: EmulatorDriver, dtype: torch.dtype, n: int, order: Order) -> None:
    driver.order = order
    x, y, out = torch.randn(n).to(dtype), torch.randn(n).to(dtype), torch.empty(n, dtype=dtype)
    options = {"num_warps": 2, "enable_fp_fusion": True}
    scaled_sum[blocks(n, 512)](x, y, out, 1.75, n, BLOCK=512, **options)
    exact = (x.double() * 1.75 + y.double()).float()
    assert torch.equal(out, exact.to(dtype))


def test_fusion_can_be_switched_off(driver: EmulatorDriver) -> None:
    x, y = torch.randn(2, 4096)
    fused, apart = torch.empty(4096), torch.empty(4096)
    scaled_sum[(8,)](x, y, fused, 1.1, 4096, BLOCK=512, enable_fp_fusion=True)
    scaled_sum[(8,)](x, y, apart, 1.1, 4096, BLOCK=512, enable_fp_fusion=False)
    assert torch.equal(apart, x * 1.1 + y)
    assert not torch.equal(fused, apart)


@pytest.mark.parametrize("warps", [1, 4, 8])
def test_reduction_over_several_warps(driver: EmulatorDriver, warps: int) -> None:
    x, out = torch.randn(7, 1500).bfloat16(), torch.empty(7)
    row_norms[(7,)](x, out, 1500, BLOCK=512, num_warps=warps)
    # 1500 terms and positive sums: at most a few roundings of the order of 2**-24 each.
    assert torch.allclose(out.double(), x.double().norm(dim=1), rtol=1e-6, atol=0)
    assert (driver.launches[-1].num_warps, driver.launches[-1].grid) == (warps, (7, 1, 1))


def test_int8(driver: EmulatorDriver) -> None:
    x = torch.randn(3000) * 5
    code, back = torch.empty(3000, dtype=torch.int8), torch.empty(3000)
    int8_round_trip[blocks(3000, 1024)](x, code, back, 0.05, 3000, BLOCK=1024)
    scale = torch.tensor(0.05)
    expected = torch.floor(x / scale + 0.5).clamp(-127, 127)
    assert torch.equal(code, expected.to(torch.int8))
    assert torch.equal(back, expected * scale)


@pytest.mark.parametrize("warps", [1, 4])
def test_fp64_scalars_and_a_loop_with_carried_values(driver: EmulatorDriver, warps: int) -> None:
    state = torch.tensor([1.3, 2.7], dtype=torch.float64)
    a, b = state.tolist()
    scalar_recurrence[(1,)](state, 9, 0.37, enable_fp_fusion=False, num_warps=warps)
    for step in range(9):
        a, b = float(np.sqrt(a * a + 0.37)) / (b + step), a
    assert state.tolist() == [a, b]


@pytest.mark.parametrize("warps", [1, 4])
def test_a_scalar_updated_in_place_without_a_barrier(driver: EmulatorDriver, warps: int) -> None:
    state = torch.ones(2, dtype=torch.float64)
    with pytest.raises(RaceError, match="state_ptr"):
        scalar_recurrence[(1,)](state, 9, 0.37, BARRIER=False, num_warps=warps)
    driver.thread_races = False
    scalar_recurrence[(1,)](state, 9, 0.37, BARRIER=False, num_warps=warps)


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("target", [torch.float16, torch.bfloat16, torch.float32])
def test_every_16_bit_value_is_converted_as_by_torch(
    driver: EmulatorDriver, source: torch.dtype, target: torch.dtype
) -> None:
    driver.check = False
    bits = torch.arange(65536, dtype=torch.int32)
    halves = source if source.itemsize == 2 else torch.float16
    x = bits.to(torch.int16).view(halves).to(source)
    if source == torch.float32:
        # On the ties between neighbouring halves, and next to them.
        ties = ((bits << 16) | 0x8000).view(torch.float32)
        x = torch.cat([x, ties, ties.nextafter(torch.tensor(torch.inf))])
    out = torch.empty(x.numel(), dtype=target)
    cast[blocks(x.numel(), 8192)](x, out, BLOCK=8192)
    assert torch.equal(out.isnan(), x.isnan())
    numbers = ~x.isnan()
    assert torch.equal(out[numbers], x.to(target)[numbers])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8(dtype: torch.dtype) -> None:
    with emulated(90):
        x, back = torch.randn(2048) * 20, torch.empty(2048)
        code = torch.empty(2048, dtype=dtype)
        to_fp8[(2,)](x, code, back, BLOCK=1024)
    assert torch.equal(code.view(torch.uint8), x.to(dtype).view(torch.uint8))
    assert torch.equal(back, x.to(dtype).float())


@pytest.mark.parametrize("warps", [1, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8])
def test_a_transposition_through_shared_memory(
    driver: EmulatorDriver, dtype: torch.dtype, warps: int
) -> None:
    x = (torch.randn(64, 32) * 50).to(dtype)
    out = torch.empty(32, 64, dtype=dtype)
    transposed[(1,)](x, out, ROWS=64, COLUMNS=32, num_warps=warps)
    assert torch.equal(out, x.T)
    assert driver.launches[-1].shared > 0


def test_integer_reductions(driver: EmulatorDriver) -> None:
    x, out = torch.randint(0, 10**6, (500,), dtype=torch.int32), torch.empty(4, dtype=torch.int32)
    integer_statistics[(1,)](x, out, 500, BLOCK=512)
    assert out.tolist() == [x.sum(), x.max(), (x % 7).sum(), x.argmax()]


@pytest.mark.parametrize("extra", [False, True])
def test_tuples_and_absent_pointers(driver: EmulatorDriver, extra: bool) -> None:
    x, y, z = torch.randn(3, 600).unbind()
    expected = x + y + z if extra else x + y
    add_pairs[(3,)]((x, y), z if extra else None, 600, BLOCK=256)
    assert torch.equal(y, expected)


def test_a_race_between_programs_is_found_in_any_order(driver: EmulatorDriver) -> None:
    for driver.order in (None, "reverse", 1):
        with pytest.raises(RaceError, match="x_ptr"):
            neighbour_sum[(4,)](torch.randn(1024), 1024, BLOCK=256)


def test_a_race_between_threads_is_found(driver: EmulatorDriver) -> None:
    with pytest.raises(RaceError, match="x_ptr"):
        neighbour_sum[(1,)](torch.randn(256), 256, BLOCK=256)


def test_a_launch_beyond_a_tensor_is_refused(driver: EmulatorDriver) -> None:
    x, short = torch.randn(1024), torch.empty(1000)
    with pytest.raises(MemoryFault, match="out_ptr"):
        scaled_sum[(2,)](x, x, short, 1.0, 1024, BLOCK=512)


def test_views_are_bounded_by_their_storage_or_by_themselves() -> None:
    whole, x = torch.zeros(2048), torch.randn(1024)
    with emulated():
        scaled_sum[(2,)](x, x, whole[:512], 2.0, 1024, BLOCK=512)
    assert torch.equal(whole[:1024], 3 * x)
    with emulated(guard_views=True), pytest.raises(MemoryFault, match="out_ptr"):
        scaled_sum[(2,)](x, x, whole[:512], 2.0, 1024, BLOCK=512)


def test_a_misaligned_view(driver: EmulatorDriver) -> None:
    for driver.guard_views in (False, True):
        x, out = torch.randn(1025).bfloat16(), torch.zeros(1027).bfloat16()
        scaled_sum[(2,)](x[1:], x[1:], out[2:1026], 1.0, 1024, BLOCK=512)
        assert torch.equal(out[2:1026], x[1:] + x[1:])
        assert (out[[0, 1, 1026]] == 0).all()


def test_code_for_aligned_pointers_is_refused_others(driver: EmulatorDriver) -> None:
    x, out = torch.randn(1024), torch.empty(1024)
    scaled_sum[(2,)](x, x, out, 1.0, 1024, BLOCK=512)
    compiled = driver.launches[-1].compiled
    memory = np.zeros(1028, np.float32)
    start = next(i for i in range(4) if memory[i:].ctypes.data % 16 == 4)
    shifted = torch.from_numpy(memory[start : start + 1024])
    with pytest.raises(MemoryFault, match="misaligned global store of 16 bytes"):
        driver.run(compiled, (2, 1, 1), (x, x, shifted, 1.0, 1024, 512))
    # Triton itself sees the pointer, and compiles other code.
    scaled_sum[(2,)](x, x, shifted, 1.0, 1024, BLOCK=512)
    assert torch.equal(shifted, x + x)


def test_memory_marked_as_uninitialised() -> None:
    with emulated() as driver:
        x, out = torch.randn(1024), driver.mark_uninitialised(torch.empty(1024))
        with pytest.raises(UninitialisedRead, match="x_ptr"):
            scaled_sum[(2,)](out, x, x.clone(), 1.0, 1024, BLOCK=512)
        scaled_sum[(2,)](x, x, out, 1.0, 1024, BLOCK=512)
        scaled_sum[(2,)](out, x, x.clone(), 1.0, 1024, BLOCK=512)


@pytest.mark.parametrize("n", [1024, 1000])
def test_bytes_are_counted(driver: EmulatorDriver, n: int) -> None:
    x, y = torch.randn(n).bfloat16(), torch.randn(n)
    out = torch.empty(n)
    scaled_sum[(2,)](x, y, out, 1.0, n, BLOCK=512, num_warps=2)
    record = driver.launches[-1]
    traffic = record.traffic
    assert list(traffic) == ["x_ptr", "y_ptr", "out_ptr"]
    assert [traffic[name].bytes_loaded for name in traffic] == [2 * n, 4 * n, 0]
    assert [traffic[name].bytes_stored for name in traffic] == [0, 0, 4 * n]
    assert (record.bytes_loaded, record.bytes_stored) == (6 * n, 4 * n)
    if n == 1024:
        # 64 threads on 512 elements: eight of two bytes each make one access of 16 bytes.
        assert traffic["x_ptr"].loads == {16: 128}
        assert traffic["x_ptr"].load_instructions == {16: 4}
        assert sum(traffic["out_ptr"].stores.values()) == 256
        assert traffic["out_ptr"].store_instructions == {16: 8}


def test_aliased_arguments_are_counted_once() -> None:
    with emulated() as driver:
        x = torch.randn(1024)
        expected = x * 2 + x
        scaled_sum[(2,)](x, x, x, 2.0, 1024, BLOCK=512)
    assert torch.equal(x, expected)
    record = driver.launches[-1]
    assert record.traffic["x_ptr"] is record.traffic["out_ptr"]
    assert (record.bytes_loaded, record.bytes_stored) == (8192, 4096)


def test_each_architecture_runs_its_own_code() -> None:
    x = torch.randn(512).bfloat16()
    targets = []
    for arch in (80, 90, 80, 100):
        with emulated(arch) as driver:
            scaled_sum[(1,)](x, x, torch.empty_like(x), 1.0, 512, BLOCK=512)
            targets.append(driver.launches[-1].kernel.target[:6].rstrip("a"))
    assert targets == ["sm_80", "sm_90", "sm_80", "sm_100"]


def test_the_previous_state_is_restored() -> None:
    config = triton.runtime.driver
    handles = triton.compiler.compiler.CompiledKernel._init_handles
    before = config._active
    with pytest.raises(ZeroDivisionError), emulated(), emulated(80) as inner:
        assert config.active is inner
        raise ZeroDivisionError
    assert config._active is before
    assert triton.compiler.compiler.CompiledKernel._init_handles is handles


def test_arguments_are_kept_on_request() -> None:
    x = torch.randn(512)
    with emulated(keep_arguments=True) as driver:
        scaled_sum[(1,)](x, x, torch.empty(512), 1.0, 512, BLOCK=512)
    assert driver.launches[-1].arguments["x_ptr"] is x
    assert driver.launches[-1].arguments["n"] == 512
