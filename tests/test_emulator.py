"""The emulator: its arithmetic against exact results, its checks against kernels to refuse."""

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from emulator import (  # noqa: E402
    EmulatorDriver,
    EmulatorError,
    Execution,
    GlobalMemory,
    MemoryFault,
    Order,
    RaceError,
    StepLimit,
    SyncError,
    Trap,
    UninitialisedRead,
    Unsupported,
    Verdict,
    compile_ahead,
    emulated,
    floats,
    launch,
    load_kernel,
    survey,
)
from emulator.liveness import Liveness  # noqa: E402
from emulator.mutants import mutants  # noqa: E402

ARCHES = (80, 90, 100)
WARP = 32

# ---------------------------------------------------------------- numbers


def nearest(exact: Fraction, dtype: type) -> Any:
    """The value of a numpy float type that is nearest to a fraction, ties to even."""
    try:
        with np.errstate(over="ignore"):
            guess = dtype(float(exact))
    except OverflowError:
        return dtype(np.inf if exact > 0 else -np.inf)
    around = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    if not all(np.isfinite(value) for value in around):
        return guess
    bits = np.array(around).view({2: np.uint16, 4: np.uint32, 8: np.uint64}[guess.itemsize])
    choices = zip(around, bits, strict=True)
    return min(choices, key=lambda c: (abs(Fraction(float(c[0])) - exact), int(c[1]) & 1))[0]


def triples(dtype: type, count: int, spread: int, smallest: int) -> np.ndarray:
    """Factors and addends: random ones, ties, cancellations, subnormals and signed zeros."""
    draw = random.Random(0)
    digits = np.finfo(dtype).nmant

    def value() -> float:
        mantissa = draw.choice([1.0, 1 + 2.0**-digits, 2 - 2.0**-digits, 1 + draw.random()])
        return draw.choice([-1, 1]) * mantissa * 2.0 ** draw.randint(-spread, spread)

    rows = []
    for _ in range(count):
        a, b = dtype(value()), dtype(value())
        product = float(a) * float(b)
        c = draw.choice([value(), -product, product * 2.0**-digits, 2.0**smallest, 0.0, -0.0])
        rows.append((a, b, dtype(c)))
    return np.array(rows, dtype)


@pytest.mark.parametrize(
    ("fma", "dtype", "spread", "smallest"),
    [
        (floats.fma16, np.float16, 7, -24),
        (floats.fma32, np.float32, 70, -149),
        (floats.fma64, np.float64, 40, -1074),
        (floats.fma64, np.float64, 530, -1074),
    ],
)
def test_fma_rounds_once(fma: Callable[..., Any], dtype: type, spread: int, smallest: int) -> None:
    with np.errstate(all="ignore"):
        cases = triples(dtype, 4000, spread, smallest)
        found = fma(*cases.T)
    for (a, b, c), result in zip(cases, found, strict=True):
        if not all(np.isfinite(x) for x in (a, b, c)):
            continue
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        assert result == nearest(exact, dtype), (a, b, c)


def test_fma_of_bf16_rounds_once() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn(3000, generator=generator).bfloat16() for _ in range(3))
    c[::3] = (a[::3].double() * b[::3].double() * 2.0**-8).bfloat16()
    found = floats.fma_bf16(*(x.view(torch.int16).numpy().view(np.uint16) for x in (a, b, c)))
    exact = a.double() * b.double() + c.double()
    # fp64 holds these sums exactly, and rounding to odd makes the two roundings one.
    assert np.array_equal(found, floats.f64_to_bf16(exact.numpy()))


def test_fma64_keeps_the_sign_of_zero_and_non_finite_values() -> None:
    inf, nan = np.inf, np.nan
    a = np.array([-0.0, 0.0, 1.0, inf, inf, 1e200, -1e200, nan])
    b = np.array([1.0, 1.0, 1.0, 2.0, 0.0, 1e200, 1e200, 1.0])
    c = np.array([-0.0, -0.0, -1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    with np.errstate(all="ignore"):
        found = floats.fma64(a, b, c)
    expected = np.array([-0.0, 0.0, 0.0, inf, nan, inf, -inf, nan])
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found[:3]), np.signbit(expected[:3]))


def every_bf16() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16)


def test_bf16_to_fp32_exhaustively() -> None:
    bits = every_bf16()
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert np.array_equal(floats.bf16_to_f32(bits), expected, equal_nan=True)


@pytest.mark.parametrize("low", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_fp32_to_bf16_around_every_tie(low: int) -> None:
    values = ((every_bf16().astype(np.uint32) << 16) | np.uint32(low)).view(np.float32)
    found = floats.f32_to_bf16(values)
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy()
    numbers = ~np.isnan(values)
    assert np.array_equal(found[numbers], expected.view(np.uint16)[numbers])
    assert (found[~numbers] == 0x7FFF).all()


def test_fp64_to_bf16_rounds_once() -> None:
    numbers = every_bf16()[:0x7F00]
    low, high = floats.bf16_to_f32(numbers[:-1]), floats.bf16_to_f32(numbers[1:])
    middle = (low.astype(np.float64) + high) / 2
    even = np.where(numbers[:-1] % 2 == 0, numbers[:-1], numbers[1:])
    assert np.array_equal(floats.f64_to_bf16(middle), even)
    # Too close to the tie for fp32 to tell.
    assert np.array_equal(floats.f64_to_bf16(middle * (1 + 2.0**-40)), numbers[1:])
    assert np.array_equal(floats.f64_to_bf16(middle * (1 - 2.0**-40)), numbers[:-1])


@pytest.mark.parametrize(
    ("codec", "dtype", "largest"),
    [
        (floats.E4M3, torch.float8_e4m3fn, 448.0),
        (floats.E5M2, torch.float8_e5m2, 57344.0),
    ],
)
def test_fp8_exhaustively(codec: floats.Float8, dtype: torch.dtype, largest: float) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(dtype).float().numpy()
    assert np.array_equal(codec.decode(codes), expected, equal_nan=True)

    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.concatenate([halves, floats.bf16_to_f32(every_bf16())])
    values = values[~np.isnan(values)]
    values = np.concatenate([values, np.nextafter(values, np.float32(np.inf))])
    clipped = torch.from_numpy(values).clamp(-largest, largest)
    assert np.array_equal(codec.encode(values), clipped.to(dtype).view(torch.uint8).numpy())
    assert codec.encode(np.array([np.nan], np.float32)) == 0x7F


def test_minimum_and_maximum_prefer_numbers_and_order_zeros() -> None:
    nan = np.float32(np.nan)
    a = np.array([nan, 1, nan, -0.0, 0.0], np.float32)
    b = np.array([2, nan, nan, 0.0, -0.0], np.float32)
    for function, expected in ((floats.minimum, [2, 1]), (floats.maximum, [2, 1])):
        assert function(a, b)[:2].tolist() == expected
        assert np.isnan(function(a, b)[2])
    assert np.signbit(floats.minimum(a, b)[3:]).all()
    assert not np.signbit(floats.maximum(a, b)[3:]).any()


# ---------------------------------------------------------------- single instructions


def module(body: str, *, parameters: int = 1, shared: int = 0, threads: int = 32) -> str:
    """A PTX module: the parameters are pointers in %rd1 and up; %r1 is the thread."""
    names = [f"p{index}" for index in range(parameters)]
    loads = [f"ld.param.b64 %rd{i + 1}, [{name}];" for i, name in enumerate(names)]
    declared = ", ".join(f".param .u64 .ptr .global .align 1 {name}" for name in names)
    memory = f".shared .align 16 .b8 cells[{shared}];" if shared else ""
    return f"""
        .version 8.6
        .target sm_90a
        .address_size 64
        {memory}
        .visible .entry test({declared})
        .reqntid {threads}
        {{
            .reg .pred %p<9>;
            .reg .b16 %rs<9>;
            .reg .b32 %r<20>;
            .reg .b64 %rd<20>;
            {" ".join(loads)}
            mov.u32 %r1, %tid.x;
            {body}
            ret;
        }}
    """


def run(
    ptx: str,
    *arrays: np.ndarray,
    programs: int = 1,
    threads: int = 32,
    written: bool = True,
    **options: Any,
) -> Execution:
    memory = GlobalMemory()
    addresses = [
        memory.add(array, f"buffer{index}", initialised=written)
        for index, array in enumerate(arrays)
    ]
    kernel = load_kernel(ptx)
    return launch(kernel, (programs,), threads, addresses, memory, **options)


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


# ---------------------------------------------------------------- checks on broken kernels

ADDRESS = "mul.wide.u32 %rd5, %r1, 4; add.s64 %rd6, %rd1, %rd5;"
PUT_SHARED = (
    "mov.u32 %r2, cells; shl.b32 %r3, %r1, 2; add.s32 %r2, %r2, %r3; st.shared.b32 [%r2], %r1;"
)
NEXT_SHARED = "add.s32 %r4, %r1, 1; and.b32 %r4, %r4, 63; shl.b32 %r4, %r4, 2;"
GET_NEXT = f"{NEXT_SHARED} mov.u32 %r5, cells; add.s32 %r5, %r5, %r4; ld.shared.b32 %r6, [%r5];"


def test_a_correct_exchange_through_shared_memory_passes() -> None:
    out = np.zeros(64, np.int32)
    body = f"{PUT_SHARED} bar.sync 0; {GET_NEXT} {ADDRESS} st.global.b32 [%rd6], %r6;"
    run(module(body, shared=256, threads=64), out, threads=64)
    assert out.tolist() == [*range(1, 64), 0]


BROKEN: dict[str, tuple[str, type[EmulatorError], str]] = {
    "a store past the end": (
        f"{ADDRESS} st.global.b32 [%rd6+4], %r1;",
        MemoryFault,
        r"out of bounds in 1 lanes.*buffer0\+256 of 256 bytes",
    ),
    "a load before the start": (
        f"{ADDRESS} ld.global.b32 %r2, [%rd6+-4];",
        MemoryFault,
        "out of bounds",
    ),
    "a misaligned vector": (
        f"{ADDRESS} ld.global.v2.b32 {{%r2, %r3}}, [%rd1+4];",
        MemoryFault,
        "misaligned global load of 8 bytes",
    ),
    "shared memory past its end": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2+256], %r1;",
        MemoryFault,
        "shared store of 4 bytes out of bounds",
    ),
    "misaligned shared memory": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2+2], %r1;",
        MemoryFault,
        "misaligned shared",
    ),
    "shared memory never written": (
        f"{GET_NEXT}",
        UninitialisedRead,
        "shared memory never written",
    ),
    "a missing barrier": (
        f"{PUT_SHARED} {GET_NEXT}",
        RaceError,
        "reads what program 0, thread",
    ),
    "a missing barrier before the next round": (
        f"{PUT_SHARED} bar.sync 0; {GET_NEXT} {PUT_SHARED}",
        RaceError,
        "overwrites what program 0, thread .* read",
    ),
    "a warp barrier between warps": (
        f"{PUT_SHARED} bar.warp.sync -1; {GET_NEXT}",
        RaceError,
        "reads what",
    ),
    "different values to one shared byte": (
        "mov.u32 %r2, cells; st.shared.b32 [%r2], %r1;",
        RaceError,
        "different values",
    ),
    "one global byte from all threads": (
        "st.global.b32 [%rd1], 1;",
        RaceError,
        "lanes of one store write the same byte",
    ),
    "threads of a program through global memory": (
        f"{ADDRESS} st.global.b32 [%rd6], %r1; ld.global.b32 %r2, [%rd1];",
        RaceError,
        "buffer0 at byte 0",
    ),
    "two stores by different threads": (
        "setp.eq.s32 %p1, %r1, 0; @%p1 st.global.b32 [%rd1], 7; "
        "setp.eq.s32 %p2, %r1, 9; @%p2 st.global.b32 [%rd1], 7;",
        RaceError,
        "thread 9 overwrites what program 0, thread 0 wrote",
    ),
    "a part of what another thread wrote": (
        f"{ADDRESS} st.global.b32 [%rd6], %r1; add.s64 %rd7, %rd6, 0; "
        "setp.eq.s32 %p1, %r1, 3; @%p1 ld.global.b8 %rs1, [%rd1+17];",
        RaceError,
        "byte 17: program 0, thread 3 reads what program 0, thread 4 wrote",
    ),
    "a shuffle that a lane misses": (
        "setp.lt.s32 %p1, %r1, 5; @%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;",
        SyncError,
        "shfl.sync.bfly",
    ),
    "a warp barrier that lanes miss": (
        "setp.lt.s32 %p1, %r1, 5; @%p1 bar.warp.sync -1;",
        SyncError,
        "warp barrier",
    ),
    "a shuffle by an uninvited lane": (
        "shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xff;",
        SyncError,
        "member mask does not name",
    ),
    "a barrier that some warps miss": (
        "setp.lt.s32 %p1, %r1, 32; @%p1 bra $skip; bar.sync 0; bra $end; $skip: bar.sync 0; $end:",
        SyncError,
        "deadlock",
    ),
    "an endless loop": ("$again: bra $again;", StepLimit, "endless loop"),
    "a trap": ("trap;", Trap, "trap"),
    "a wild address": ("ld.global.b32 %r2, [%rd9];", MemoryFault, "out of bounds|misaligned"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_refused(name: str) -> None:
    body, error, message = BROKEN[name]
    ptx = module(body, shared=256, threads=64)
    with pytest.raises(error, match=message):
        run(ptx, np.zeros(64, np.int32), threads=64, max_steps=1000)


def test_without_checks_only_bounds_and_alignment_are_checked() -> None:
    out = np.zeros(64, np.int32)
    races = module(f"{PUT_SHARED} {GET_NEXT}", shared=256, threads=64)
    run(races, out, threads=64, check=False)
    with pytest.raises(MemoryFault):
        run(module(f"{ADDRESS} st.global.b32 [%rd6+4], %r1;"), out[:32], check=False)


def test_global_memory_never_written() -> None:
    body = f"{ADDRESS} setp.lt.s32 %p1, %r1, 31; @%p1 st.global.b32 [%rd6], %r1; bar.sync 0;"
    run(module(body), np.zeros(32, np.int32), written=False)
    with pytest.raises(UninitialisedRead, match="buffer0"):
        run(module(f"{body} ld.global.b32 %r2, [%rd6];"), np.zeros(32, np.int32), written=False)


PROGRAM_ADDRESS = "mov.u32 %r9, %ctaid.x; mul.wide.u32 %rd8, %r9, 4; add.s64 %rd8, %rd1, %rd8;"
FIRST_THREAD = "setp.eq.s32 %p1, %r1, 0;"


@pytest.mark.parametrize("order", [None, "reverse", 3])
@pytest.mark.parametrize("programs", [3, 1000])
@pytest.mark.parametrize(
    ("body", "races"),
    [
        (f"{PROGRAM_ADDRESS} {FIRST_THREAD} @%p1 st.global.b32 [%rd8], %r9;", False),
        (f"{FIRST_THREAD} @%p1 st.global.b32 [%rd1], 7;", True),
        (
            f"{PROGRAM_ADDRESS} {FIRST_THREAD} @%p1 st.global.b32 [%rd8], %r9; bar.sync 0; "
            "ld.global.b32 %r2, [%rd1];",
            True,
        ),
        (
            f"{PROGRAM_ADDRESS} ld.global.b32 %r2, [%rd1]; bar.sync 0; {FIRST_THREAD}"
            "@%p1 st.global.b32 [%rd8], %r9;",
            True,
        ),
    ],
)
def test_programs_must_not_share_what_they_write(
    body: str, races: bool, programs: int, order: Order
) -> None:
    out = np.full(programs, -1, np.int32)
    with pytest.raises(RaceError, match="program") if races else nullcontext():
        run(module(body), out, programs=programs, order=order)
    assert races or out.tolist() == list(range(programs))


def test_a_barrier_orders_the_threads_of_a_program() -> None:
    for barrier, allowed in (("bar.sync 0;", True), ("bar.warp.sync -1;", True), ("", False)):
        body = f"{ADDRESS} st.global.b32 [%rd6], %r1; {barrier} ld.global.b32 %r2, [%rd1+8];"
        with nullcontext() if allowed else pytest.raises(RaceError):
            run(module(body), np.zeros(32, np.int32))


@pytest.mark.parametrize(("lanes", "warps"), [(64, 2), (40, 2), (20, 1), (1, 1)])
def test_instructions_are_counted_by_warp(lanes: int, warps: int) -> None:
    body = f"{ADDRESS} setp.lt.s32 %p1, %r1, {lanes}; @%p1 ld.global.b32 %r2, [%rd6];"
    execution = run(module(body, threads=64), np.zeros(64, np.int32), threads=64)
    traffic = execution.traffic["buffer0"]
    assert (traffic.loads, traffic.load_instructions) == ({4: lanes}, {4: warps})


@pytest.mark.parametrize("members", [32, 20])
def test_float_reductions_of_a_warp(members: int) -> None:
    values = np.random.default_rng(16).normal(size=32).astype(np.float32)
    values[3] = np.nan
    numbers = values[:members][~np.isnan(values[:members])]
    for operation, expected in {
        "max": numbers.max(),
        "min": numbers.min(),
        "max.abs": np.abs(numbers).max(),
        "max.NaN": np.float32(np.nan),
    }.items():
        data = values.copy()
        named = (1 << members) - 1
        body = f"""
            {ADDRESS} ld.global.b32 %r2, [%rd6]; setp.lt.s32 %p1, %r1, {members};
            @%p1 redux.sync.{operation}.f32 %r3, %r2, {named};
            @%p1 st.global.b32 [%rd6], %r3;
        """
        run(module(body), data)
        assert np.array_equal(data[:members], np.full(members, expected), equal_nan=True)


def test_diverged_lanes_meet_again() -> None:
    body = f"""
        mov.b32 %r2, 0;
        $loop: add.s32 %r2, %r2, 2;
        setp.lt.s32 %p1, %r2, %r1;
        @%p1 bra $loop;
        shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;
        {ADDRESS} st.global.b32 [%rd6], %r3;
    """
    out = np.zeros(32, np.int32)
    run(module(body), out)
    counted = [max(2, lane + lane % 2) for lane in range(32)]
    assert out.tolist() == [counted[lane ^ 1] for lane in range(32)]


# ---------------------------------------------------------------- Triton kernels


@triton.jit
def scaled_sum(x_ptr, y_ptr, out_ptr, scale, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, (x * scale + y).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def row_norms(x_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * columns + offsets, mask=offsets < columns, other=0.0)
        total += x.to(tl.float32) * x.to(tl.float32)
    tl.store(out_ptr + row, tl.sqrt_rn(tl.sum(total, axis=0)))


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
    # All threads load both, and one of them stores.
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
        # Next to the ties between neighbouring halves, and on them.
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


# ---------------------------------------------------------------- ahead of time

SIGNATURE = {"x_ptr": "*bf16", "y_ptr": "*bf16", "out_ptr": "*bf16", "scale": "fp32", "n": "i32"}
POINTERS = ("x_ptr", "y_ptr", "out_ptr")


@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_facts_from_machine_code(target: str) -> None:
    constants = {"BLOCK": 1024}
    wide = compile_ahead(
        scaled_sum, SIGNATURE, target, constants=constants, divisible=(*POINTERS, "n")
    )
    narrow = compile_ahead(scaled_sum, SIGNATURE, target, constants=constants, divisible=POINTERS)
    assert (wide.global_accesses.loads, wide.global_accesses.stores) == ({128: 2}, {128: 1})
    assert (narrow.global_accesses.loads, narrow.global_accesses.stores) == ({16: 16}, {16: 8})
    assert 8 < wide.resources.registers < 64
    assert wide.resources.spilled == 0
    assert wide.kernel.target.startswith(target)


def test_facts_for_amd() -> None:
    compiled = compile_ahead(
        scaled_sum, SIGNATURE, "gfx942", constants={"BLOCK": 2048}, divisible=(*POINTERS, "n")
    )
    assert (compiled.global_accesses.loads, compiled.global_accesses.stores) == ({128: 2}, {128: 1})
    assert compiled.resources.registers > 0
    assert compiled.resources.scalar_registers > 0
    assert compiled.resources.spilled == 0


def test_spills_are_seen() -> None:
    constants = {"BLOCK": 8192}
    compiled = compile_ahead(
        scaled_sum, SIGNATURE, "sm_90", constants=constants, num_warps=1, maxnreg=32
    )
    assert compiled.resources.spilled > 0


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="no arguments"):
        compile_ahead(scaled_sum, SIGNATURE, "sm_90", constants={"BLOCK": 64}, divisible=("z",))


# ---------------------------------------------------------------- mutants


def test_mutants_of_a_kernel_that_the_driver_ran() -> None:
    x = torch.randn(5, 700)
    expected = x.double().norm(dim=1)

    def norms() -> torch.Tensor:
        out = torch.full((5,), float("nan"))
        row_norms[(5,)](x, out, 700, BLOCK=256, num_warps=2)
        return out.double()

    with emulated(90) as driver:
        norms()
        original = driver.launches[-1].original

        def trial(kernel: Any) -> bool:
            with driver.substituted(original, kernel):
                return torch.allclose(norms(), expected, rtol=1e-6, atol=0)

        report = survey(original, trial)
        assert not driver.substitutes
    assert report.judged > 100
    assert report.noticed > 0.8
    found = report.counts
    assert found[Verdict.WRONG] and found[Verdict.RACE] and found[Verdict.MEMORY]
    assert found[Verdict.STEP_LIMIT]
    barriers = [v for mutant, v in report.verdicts if mutant.kind == "remove barrier"]
    assert Verdict.RACE in barriers
    assert set(barriers) <= {Verdict.RACE, Verdict.MEMORY, Verdict.EQUIVALENT}
    assert str(report).startswith(f"{report.judged} mutants")


PLANTED = f"""
    {ADDRESS}
    bar.sync 0;
    add.s32 %r2, %r1, 5;
    mov.b32 %r3, 1;
    mov.b32 %r3, 3;
    add.s32 %r4, %r1, %r3;
    bra $next;
    $next: st.global.b32 [%rd6], %r4;
    bra $end;
    st.global.b32 [%rd6], %r1;
    $end:
"""


def test_planted_equivalents_are_recognised() -> None:
    kernel = load_kernel(module(PLANTED))
    out = np.zeros(32, np.int32)

    def trial(mutant: Any) -> bool:
        memory = GlobalMemory()
        out[:] = -1
        launch(mutant, (1,), 32, [memory.add(out)], memory, max_steps=200)
        return out.tolist() == list(range(3, 35))

    report = survey(kernel, trial)
    equivalent = {m.before for m, v in report.verdicts if v is Verdict.EQUIVALENT}
    assert equivalent == {
        "bar.sync 0",
        "add.s32 %r2, %r1, 5",
        "mov.b32 %r3, 1",
        "bra $next",
        "st.global.b32 [%rd6], %r1",
        "ret",
    }
    assert all(trial(mutant.kernel) for mutant in mutants(kernel) if mutant.equivalent)
    assert report.survivors == []


MASKED_LOAD = f"""
    setp.lt.s32 %p1, %r1, 7;
    {ADDRESS}
    mov.u32 %r2, 0;
    @%p1 ld.global.b32 %r2, [%rd6];
    add.s32 %r3, %r2, 5;
    @%p1 st.global.b32 [%rd6], %r3;
"""


@pytest.mark.parametrize(
    ("before", "after", "is_masked"),
    [
        ("", "", True),
        ("@%p1 st", "st", False),
        ("@%p1 st", "@!%p1 st", False),
        ("add.s32 %r3, %r2, 5", "shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1", False),
        ("add.s32 %r3, %r2, 5", "setp.lt.s32 %p1, %r2, 5", False),
        ("mov.u32 %r2, 0;", "mov.u32 %r2, 0; add.s32 %r4, %r2, 1;", False),
        ("@%p1 ld", "ld", False),
    ],
)
def test_what_lanes_that_do_not_load_hold(before: str, after: str, is_masked: bool) -> None:
    """Nobody sees it, if it reaches stores under the load's predicate alone."""
    kernel = load_kernel(module(MASKED_LOAD.replace(before, after, 1)))
    found = {m.equivalent for m in mutants(kernel) if m.before == "mov.u32 %r2, 0"}
    assert ("seen by no lane that stores" in found) == is_masked


@pytest.mark.parametrize(("selector", "is_equivalent"), [("0x9b31U", True), ("0x3214U", False)])
def test_a_source_of_prmt_that_is_not_taken(selector: str, is_equivalent: bool) -> None:
    body = f"prmt.b32 %r4, %r1, 0, {selector}; {ADDRESS} st.global.b32 [%rd6], %r4;"
    found = [m for m in mutants(load_kernel(module(body))) if m.after.startswith("prmt.b32")]
    of_source = [m for m in found if f", {selector}" in m.after]
    assert of_source and all(bool(m.equivalent) == is_equivalent for m in of_source)


def test_a_difference_whose_sign_nobody_reads() -> None:
    for reader, is_unread in (
        ("abs.f32 %r5, %r4", True),
        ("mul.f32 %r5, %r4, %r4", True),
        ("mul.f32 %r5, %r4, %r3", False),
    ):
        body = f"sub.f32 %r4, %r2, %r3; {reader}; {ADDRESS} st.global.b32 [%rd6], %r5;"
        found = [m for m in mutants(load_kernel(module(body))) if m.kind == "swap sources"]
        assert [bool(m.equivalent) for m in found] == [is_unread]


def test_which_mutants_there_are() -> None:
    body = f"""
        setp.lt.s32 %p1, %r1, 7;
        sub.f32 %r2, %r3, 0f3F800000;
        shfl.sync.bfly.b32 %r4, %r2, 16, 31, -1;
        bar.sync 0;
        {ADDRESS}
        @%p1 st.global.b32 [%rd6+8], %r4;
    """
    found = list(mutants(load_kernel(module(body))))
    assert all(mutant.before != mutant.after for mutant in found)
    changes = {(mutant.kind, mutant.after) for mutant in found}
    assert changes >= {
        ("delete", ""),
        ("remove barrier", ""),
        ("other comparison", "setp.le.s32 %p1, %r1, 7"),
        ("swap sources", "setp.lt.s32 %p1, 7, %r1"),
        ("constant", "setp.lt.s32 %p1, %r1, 8"),
        ("constant", "setp.lt.s32 %p1, %r1, 6"),
        ("sub -> add", "add.f32 %r2, %r3, 0f3F800000"),
        ("swap sources", "sub.f32 %r2, 0f3F800000, %r3"),
        ("constant", "sub.f32 %r2, %r3, 0f40000000"),
        ("shuffle offset", "shfl.sync.bfly.b32 %r4, %r2, 8, 31, -1"),
        ("drop predicate", "st.global.b32 [%rd6+8], %r4"),
        ("negate predicate", "@!%p1 st.global.b32 [%rd6+8], %r4"),
        ("address", "@%p1 st.global.b32 [ %rd6 + 12 ], %r4"),
    }


def test_what_is_called_equivalent_survives_when_run() -> None:
    x = torch.randn(3, 300)
    with emulated(90) as driver:
        for warps in (1, 4):
            out = torch.empty(3)
            row_norms[(3,)](x, out, 300, BLOCK=128, num_warps=warps)
            original = driver.launches[-1].original
            equivalent = [mutant for mutant in mutants(original) if mutant.equivalent]
            assert equivalent
            for mutant in equivalent:
                again = torch.empty(3)
                with driver.substituted(original, mutant.kernel):
                    row_norms[(3,)](x, again, 300, BLOCK=128, num_warps=warps)
                assert torch.equal(out, again), mutant.description


def test_a_mutant_that_never_ends_is_stopped_soon() -> None:
    x, out = torch.randn(1, 300), torch.empty(1)
    with emulated(90) as driver:
        row_norms[(1,)](x, out, 300, BLOCK=128)
        original = driver.launches[-1].original
        driver.launches.clear()
        endless = load_kernel(module("$again: bra $again;", parameters=5, threads=128))
        with driver.substituted(original, endless), pytest.raises(StepLimit) as error:
            row_norms[(1,)](x, out, 300, BLOCK=128)
    assert int(str(error.value).split()[2]) < 5000


def test_liveness_of_predicated_writes_and_loops() -> None:
    body = f"""
        mov.b32 %r2, 0;
        mov.b32 %r3, 0;
        setp.lt.s32 %p1, %r1, 4;
        @%p1 mov.b32 %r3, 9;
        $loop: add.s32 %r2, %r2, 1;
        setp.lt.s32 %p2, %r2, 5;
        @%p2 bra $loop;
        {ADDRESS} st.global.b32 [%rd6], %r3;
    """
    kernel = load_kernel(module(body))
    facts = Liveness(kernel)
    dead = {i.text for position, i in enumerate(kernel.instructions) if facts.is_dead(position)}
    assert dead == set()
