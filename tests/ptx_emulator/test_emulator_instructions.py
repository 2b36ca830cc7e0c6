"""Single instructions of the emulator against numpy, and unsupported ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip("triton")


from tests.support.ptx_emulator import (  # noqa: E402
    EmulatorError,
    GlobalMemory,
    MemoryFault,
    Unsupported,
    launch,
    load_kernel,
)
from tests.support.ptx_emulator.instructions.calls import EXTERNALS  # noqa: E402
from tests.support.ptx_emulator.ptx_snippets import ADDRESS, WARP, module, run  # noqa: E402

REGISTER = {2: "rs", 4: "r", 8: "rd"}


def evaluate(instruction: str, sources: list[np.ndarray], result: Any) -> np.ndarray:
    """Run `name operands` on 32 threads: $0 is the result, $1 and up are the sources."""
    out = np.zeros(WARP, result)
    lines, text = [], instruction
    for index, array in enumerate([out, *sources]):
        width = array.dtype.itemsize
        lines.append(f"mul.wide.u32 %rd10, %r1, {width}; add.s64 %rd10, %rd{index + 1}, %rd10;")
        name = f"%{REGISTER[width]}{11 + index if width > 2 else index}"
        if index:
            lines.append(f"ld.global.b{8 * width} {name}, [%rd10];")
        text = text.replace(f"${index}", name)
    width = out.dtype.itemsize
    name = f"%{REGISTER[width]}{11 if width > 2 else 0}"
    lines += [f"{text};", f"mul.wide.u32 %rd10, %r1, {width}; add.s64 %rd10, %rd1, %rd10;"]
    lines += [f"st.global.b{8 * width} [%rd10], {name};"]
    run(module(" ".join(lines), parameters=1 + len(sources)), out, *sources)
    return out


def integers(dtype: Any, seed: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    edges = [0, 1, 2, 7, limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 3]
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 40, 8).tolist()
    rest = draw.integers(limits.min, limits.max, WARP - len(edges) - 8, dtype, endpoint=True)
    values = np.array([*edges, *small, *rest.tolist()], dtype)
    return draw.permutation(values)


def towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def bits_of(value: int, start: int, length: int) -> int:
    return (value >> start) & ((1 << length) - 1)


INTEGER_CASES: dict[str, tuple[Any, Any, Callable[..., int]]] = {
    "add.s32": (np.int32, np.int32, lambda a, b: a + b),
    "sub.s64": (np.int64, np.int64, lambda a, b: a - b),
    "mul.lo.s32": (np.int32, np.int32, lambda a, b: a * b),
    "mul.lo.s64": (np.int64, np.int64, lambda a, b: a * b),
    "mul.hi.s32": (np.int32, np.int32, lambda a, b: (a * b) >> 32),
    "mul.hi.u32": (np.uint32, np.uint32, lambda a, b: (a * b) >> 32),
    "mul.hi.s64": (np.int64, np.int64, lambda a, b: (a * b) >> 64),
    "mul.hi.u64": (np.uint64, np.uint64, lambda a, b: (a * b) >> 64),
    "mul.wide.s32": (np.int32, np.int64, lambda a, b: a * b),
    "mul.wide.u32": (np.uint32, np.uint64, lambda a, b: a * b),
    "mul.wide.s16": (np.int16, np.int32, lambda a, b: a * b),
    "min.s32": (np.int32, np.int32, min),
    "max.u32": (np.uint32, np.uint32, max),
    "and.b32": (np.uint32, np.uint32, lambda a, b: a & b),
    "xor.b64": (np.uint64, np.uint64, lambda a, b: a ^ b),
}


@pytest.mark.parametrize("name", INTEGER_CASES)
def test_integer_arithmetic(name: str) -> None:
    dtype, result, expected = INTEGER_CASES[name]
    a, b = integers(dtype, 1), integers(dtype, 2)
    found = evaluate(f"{name} $0, $1, $2", [a, b], result)
    mask = (1 << found.dtype.itemsize * 8) - 1
    for x, y, value in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        assert value & mask == expected(x, y) & mask, (name, x, y)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_division(dtype: Any) -> None:
    kind = f"{'s' if np.dtype(dtype).kind == 'i' else 'u'}{np.dtype(dtype).itemsize * 8}"
    a, b = integers(dtype, 3), integers(dtype, 4)
    b = np.where(b == 0, 3, b).astype(dtype)
    mask = (1 << np.dtype(dtype).itemsize * 8) - 1
    quotient = evaluate(f"div.{kind} $0, $1, $2", [a, b], dtype)
    rest = evaluate(f"rem.{kind} $0, $1, $2", [a, b], dtype)
    for x, y, q, r in zip(*(v.tolist() for v in (a, b, quotient, rest)), strict=True):
        assert q & mask == towards_zero(x, y) & mask
        assert r & mask == (x - towards_zero(x, y) * y) & mask


@pytest.mark.parametrize("width", [32, 64])
def test_shifts_beyond_the_width(width: int) -> None:
    unsigned = np.dtype(f"u{width // 8}")
    signed = np.dtype(f"i{width // 8}")
    values = integers(unsigned, 5)
    amounts = np.arange(WARP, dtype=np.uint32) * 4
    left = evaluate(f"shl.b{width} $0, $1, $2", [values, amounts], unsigned)
    right = evaluate(f"shr.u{width} $0, $1, $2", [values, amounts], unsigned)
    arithmetic = evaluate(f"shr.s{width} $0, $1, $2", [values.view(signed), amounts], signed)
    for x, s, n, *found in zip(
        *(v.tolist() for v in (values, values.view(signed), amounts, left, right, arithmetic)),
        strict=True,
    ):
        assert found == [(x << n) % (1 << width), x >> n, s >> min(n, width - 1)]


def test_bit_fields() -> None:
    values, base = integers(np.uint32, 6), integers(np.uint32, 7)
    starts = np.arange(WARP, dtype=np.uint32)
    lengths = np.arange(WARP, dtype=np.uint32)[::-1].copy() // 2
    extracted = evaluate("bfe.u32 $0, $1, $2, $3", [values, starts, lengths], np.uint32)
    signed = evaluate("bfe.s32 $0, $1, $2, $3", [values.view(np.int32), starts, lengths], np.int32)
    inserted = evaluate("bfi.b32 $0, $1, $2, $3, $4", [values, base, starts, lengths], np.uint32)
    rows = zip(*(v.tolist() for v in (values, base, starts, lengths)), strict=True)
    for lane, (value, under, start, length) in enumerate(rows):
        field = bits_of(value, start, length)
        assert extracted[lane] == field
        sign_extended = value - (1 << 32) * (value >> 31)
        full = sign_extended >> start & ((1 << length) - 1)
        negative = length and sign_extended >> min(start + length - 1, 31) & 1
        assert signed[lane] == full - (1 << length) * bool(negative)
        window = ((1 << length) - 1) << start & 0xFFFFFFFF
        assert inserted[lane] == (value << start & window) | (under & ~window & 0xFFFFFFFF)


def test_byte_permutation_logic_and_funnel_shift() -> None:
    a, b, c = (integers(np.uint32, seed) for seed in (8, 9, 10))
    permuted = evaluate("prmt.b32 $0, $1, $2, $3", [a, b, c], np.uint32)
    for x, y, selector, found in zip(*(v.tolist() for v in (a, b, c, permuted)), strict=True):
        pool, expected = (y << 32 | x).to_bytes(8, "little"), []
        for position in range(4):
            nibble = bits_of(selector, 4 * position, 4)
            byte = pool[nibble & 7]
            expected.append(0xFF * (byte >> 7) if nibble & 8 else byte)
        assert found == int.from_bytes(bytes(expected), "little")
    assert np.array_equal(evaluate("lop3.b32 $0, $1, $2, $3, 0xE8", [a, b, c], np.uint32),
                          (a & b) | (a & c) | (b & c))  # fmt: skip
    amounts = np.arange(WARP, dtype=np.uint32)
    for side in ("l", "r"):
        shifted = evaluate(f"shf.{side}.wrap.b32 $0, $1, $2, $3", [a, b, amounts], np.uint32)
        for x, y, n, found in zip(*(v.tolist() for v in (a, b, amounts, shifted)), strict=True):
            pair = y << 32 | x
            assert found == (pair << n >> 32 if side == "l" else pair >> n) & 0xFFFFFFFF


def test_bit_counts() -> None:
    values = integers(np.uint32, 11)
    for name, expected in {
        "popc.b32": lambda x: x.bit_count(),
        "clz.b32": lambda x: 32 - x.bit_length(),
        "brev.b32": lambda x: int(f"{x:032b}"[::-1], 2),
    }.items():
        found = evaluate(f"{name} $0, $1", [values], np.uint32)
        assert found.tolist() == [expected(x) for x in values.tolist()]


def test_conversions_saturate() -> None:
    values = np.resize(np.array([1e10, -1e10, np.nan, -1.5, 2.5, -0.5, 3.7], np.float32), WARP)
    nearest_even = evaluate("cvt.rni.s32.f32 $0, $1", [values], np.int32)
    assert nearest_even[:7].tolist() == [2**31 - 1, -(2**31), 0, -2, 2, 0, 4]
    cut = evaluate("cvt.rzi.u32.f32 $0, $1", [values], np.uint32)
    assert cut[:7].tolist() == [2**32 - 1, 0, 0, 0, 2, 0, 3]
    narrow = evaluate("cvt.sat.s8.s32 $0, $1", [integers(np.int32, 12)], np.int16)
    assert np.array_equal(narrow, np.clip(integers(np.int32, 12), -128, 127))
    wide = evaluate("cvt.s32.s8 $0, $1", [np.arange(WARP, dtype=np.uint16) * 9], np.int32)
    assert np.array_equal(wide, (np.arange(WARP) * 9).astype(np.int8))


@pytest.mark.parametrize(("constant", "expected"), [("0", 2), ("1", 1), ("-1", 1)])
def test_constant_predicates(constant: str, expected: int) -> None:
    out = np.zeros(32, np.int32)
    body = (
        f"{ADDRESS} mov.pred %p1, {constant}; selp.b32 %r2, 1, 2, %p1; st.global.b32 [%rd6], %r2;"
    )
    run(module(body), out)
    assert (out == expected).all()


NAN = float("nan")


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("lt", [1, 0, 0, 0, 0]),
        ("le", [1, 1, 0, 0, 0]),
        ("ne", [1, 0, 1, 0, 0]),
        ("eq", [0, 1, 0, 0, 0]),
        ("ltu", [1, 0, 0, 1, 1]),
        ("neu", [1, 0, 1, 1, 1]),
        ("equ", [0, 1, 0, 1, 1]),
        ("num", [1, 1, 1, 0, 0]),
        ("nan", [0, 0, 0, 1, 1]),
    ],
)
def test_comparisons_with_nan(comparison: str, expected: list[int]) -> None:
    a = np.resize(np.array([1, 2, 3, NAN, NAN], np.float32), WARP)
    b = np.resize(np.array([2, 2, 2, 2, NAN], np.float32), WARP)
    compare = f"setp.{comparison}.f32 %p1, $1, $2; selp.b32 $0, 1, 0, %p1"
    assert evaluate(compare, [a, b], np.int32)[:5].tolist() == expected


def test_division_by_zero_gives_all_bits() -> None:
    a, zero = integers(np.int32, 17), np.zeros(WARP, np.int32)
    assert (evaluate("div.s32 $0, $1, $2", [a, zero], np.int32) == -1).all()
    assert (evaluate("div.u32 $0, $1, $2", [a, zero], np.uint32) == 2**32 - 1).all()


def test_generic_addresses_reach_shared_and_global_memory() -> None:
    out = np.zeros(64, np.int32)
    body = f"""
        mov.b64 %rd2, cells; cvta.shared.u64 %rd3, %rd2; mul.wide.u32 %rd5, %r1, 4;
        add.s64 %rd3, %rd3, %rd5; st.b32 [%rd3], %r1; ld.b32 %r2, [%rd3];
        cvta.to.shared.u64 %rd4, %rd3; ld.shared.b32 %r3, [%rd4];
        add.s32 %r2, %r2, %r3; {ADDRESS} st.b32 [%rd6], %r2;
    """
    run(module(body, shared=256, threads=64), out, threads=64)
    assert out.tolist() == [2 * thread for thread in range(64)]


def test_program_numbers_in_three_dimensions() -> None:
    out = np.full((3, 4, 2), -1, np.int32)
    body = """
        mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ctaid.y; mov.u32 %r4, %ctaid.z;
        mov.u32 %r5, %nctaid.x; mov.u32 %r6, %nctaid.y;
        mad.lo.s32 %r7, %r4, %r6, %r3; mad.lo.s32 %r7, %r7, %r5, %r2;
        mul.wide.u32 %rd5, %r7, 4; add.s64 %rd6, %rd1, %rd5;
        mad.lo.s32 %r8, %r4, 100, %r2; mad.lo.s32 %r8, %r3, 10, %r8;
        setp.eq.s32 %p1, %r1, 0; @%p1 st.global.b32 [%rd6], %r8;
    """
    memory = GlobalMemory()
    kernel = load_kernel(module(body))
    launch(kernel, (2, 4, 3), 32, [memory.add(out)], memory)
    z, y, x = np.indices(out.shape)
    assert np.array_equal(out, 100 * z + 10 * y + x)


def test_a_buffer_that_starts_between_aligned_addresses() -> None:
    data = np.arange(10, dtype=np.int32)
    body = """
        setp.eq.s32 %p1, %r1, 0;
        @%p1 ld.global.b64 %rd2, [%rd1+4]; @%p1 st.global.b64 [%rd1+28], %rd2;
    """
    memory = GlobalMemory()
    address = memory.add(data, misalignment=4)
    launch(load_kernel(module(body)), (1,), 32, [address], memory)
    assert data.tolist() == [0, 1, 2, 3, 4, 5, 6, 1, 2, 9]
    beyond = load_kernel(module("ld.global.b64 %rd2, [%rd1+36];"))
    with pytest.raises(MemoryFault, match="out of bounds"):
        launch(beyond, (1,), 32, [address], memory)


def test_launches_that_the_kernel_does_not_allow() -> None:
    ptx, out = module("", threads=32), np.zeros(4, np.int32)
    for problem in ({"threads": 64}, {"threads": 0}, {"programs": 0}):
        with pytest.raises(EmulatorError):
            run(ptx, out, **problem)


def test_registers_start_poisoned() -> None:
    out = np.zeros(32, np.float32)
    run(module(f"{ADDRESS} st.global.b32 [%rd6], %r9;"), out)
    assert np.isnan(out).all()


def test_subnormals_are_flushed_only_on_request() -> None:
    tiny, one = np.full(WARP, 1e-39, np.float32), np.ones(WARP, np.float32)
    assert (evaluate("mul.f32 $0, $1, $2", [tiny, one], np.float32) == tiny).all()
    assert (evaluate("mul.ftz.f32 $0, $1, $2", [tiny, one], np.float32) == 0).all()


@pytest.mark.parametrize("name", ["div.rn.f64", "add.f64", "mul.f64", "sub.f64"])
def test_fp64_arithmetic(name: str) -> None:
    draw = np.random.default_rng(13)
    a, b = draw.normal(size=WARP), draw.normal(size=WARP)
    python = {"div": float.__truediv__, "add": float.__add__, "mul": float.__mul__}
    operation = python.get(name[:3], float.__sub__)
    found = evaluate(f"{name} $0, $1, $2", [a, b], np.float64)
    assert found.tolist() == [operation(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["sqrt.rn.f64", "rcp.rn.f64"])
def test_fp64_functions(name: str) -> None:
    values = np.abs(np.random.default_rng(14).normal(size=WARP))
    expected = np.sqrt(values) if name.startswith("sqrt") else 1 / values
    assert np.array_equal(evaluate(f"{name} $0, $1", [values], np.float64), expected)


def test_fp64_approximations_leave_the_low_half_zero() -> None:
    values = np.abs(np.random.default_rng(15).normal(size=WARP)) + 0.1
    for name, exact in (("rcp", 1 / values), ("rsqrt", 1 / np.sqrt(values))):
        found = evaluate(f"{name}.approx.ftz.f64 $0, $1", [values], np.float64)
        assert np.allclose(found, exact, rtol=2.0**-19, atol=0)
        assert (found.view(np.uint64) & np.uint64(0xFFFFFFFF) == 0).all()


def test_atomic_additions() -> None:
    out = np.zeros(4, np.int32)
    body = """
        and.b32 %r2, %r1, 3; mul.wide.u32 %rd5, %r2, 4; add.s64 %rd6, %rd1, %rd5;
        atom.global.gpu.relaxed.add.u32 %r3, [%rd6], %r1; red.global.add.u32 [%rd6], 1;
    """
    run(module(body), out, programs=3)
    assert out.tolist() == [3 * (sum(range(lane, 32, 4)) + 8) for lane in range(4)]


@pytest.mark.parametrize(
    "instruction",
    [
        "frobnicate.b32 %r2, %r1",
        "add.rz.f32 %r2, %r3, %r4",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 %r2, %r3, %r4, %r5",
        "mov.u32 %r2, %clock",
        "ld.const.b32 %r2, [%rd1]",
        "shfl.sync.sideways.b32 %r2, %r1, 1, 31, -1",
        "bar.sync 1, 64",
        "setp.lt.brand.s32 %p1, %r1, 3",
        "add.s32 %r2, %r1, %undeclared",
        "add.s32 %r2, %r1",
        "cvt.rp.bf16.f32 %rs1, %r1",
    ],
)
def test_what_is_not_known_is_refused_by_name(instruction: str) -> None:
    with pytest.raises(Unsupported) as error:
        run(module(f"{instruction};"), np.zeros(WARP, np.int32))
    words = instruction.replace(",", "").split()
    assert any(word in str(error.value) for word in words)


CALL = """
    {
    .param .b64 param0;
    st.param.b64 [param0+0], %rd1;
    .param .b32 param1;
    st.param.b32 [param1], %r1;
    @%p1 call.uni tell, (param0, param1);
    }
"""


def test_calls_of_what_a_test_has_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setitem(EXTERNALS, "tell", lambda address, lane: told.append((address, lane)))
    memory = GlobalMemory()
    address = memory.add(np.zeros(1, np.int32))
    kernel = load_kernel(module(f"setp.gt.u32 %p1, %r1, 29; {CALL}"))
    launch(kernel, (2,), WARP, [address], memory)
    assert told == [(address, 30), (address, 31)] * 2


def test_calls_of_anything_else_are_refused() -> None:
    with pytest.raises(Unsupported, match="a call of tell, which is not among the EXTERNALS"):
        run(module(f"setp.gt.u32 %p1, %r1, 29; {CALL}"), np.zeros(1, np.int32))
    with pytest.raises(Unsupported, match="returns something"):
        run(module("call.uni (%r2), tell, (%r1);"), np.zeros(1, np.int32))


def test_memory_at_addresses_of_the_caller() -> None:
    memory, far, near = GlobalMemory(), np.arange(4, dtype=np.int32), np.zeros(4, np.int32)
    memory.add_at(0x9000, far)
    memory.add_at(0x1000, near)
    body = f"{ADDRESS} ld.global.b32 %r2, [%rd6]; add.s64 %rd7, %rd2, %rd5; "
    body += "st.global.b32 [%rd7], %r2;"
    kernel = load_kernel(module(body, parameters=2, threads=4))
    launch(kernel, (1,), 4, [0x9000, 0x1000], memory)
    assert near.tolist() == [0, 1, 2, 3]
    with pytest.raises(MemoryFault):
        launch(kernel, (1,), 4, [0x9000, 0x1004], memory)
