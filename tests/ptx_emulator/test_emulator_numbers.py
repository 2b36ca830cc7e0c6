"""The emulator's arithmetic against exact results."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")


from tests.support.ptx_emulator import floats  # noqa: E402


def nearest(exact: Fraction, dtype: type) -> Any:
    """Return the value of a numpy float type that is nearest to a fraction, ties to even."""
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
    """Return factors and addends: random ones, ties, cancellations, subnormals, signed zeros."""
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
    # Too close to the tie to be distinguished in fp32.
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
