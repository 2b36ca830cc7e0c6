"""The compiled distance_update: the same bits in every instruction set, on any number of threads.

This file has its own oracle in plain torch; other tests compare the ops with reference.py.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from adacache_kernels import _native
from adacache_kernels.ops.native_views import view
from tests.support.op_checks.compiled_ops import (
    METRICS,
    NOTHING,
    PREVIOUS,
    SHAPES,
    SUM_ERROR,
    distance_update,
)
from tests.support.op_checks.operands import DTYPES, assert_same_bits, memory_layouts

_C: Any = _native.module()


def expected_distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: int,
    slot_holds: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new slot, the sums in float64, and the sums of the magnitudes of their terms."""
    p = x_out.float() if x_in is None else x_out.float() - x_in.float()
    new = p.to(slot.dtype)
    p = new.float()
    terms = [*previous, *([slot] if slot_holds == PREVIOUS else [])]
    columns = [torch.zeros_like(p)] * 3
    if terms:
        factors = torch.ones(1) if coefficients is None else coefficients
        c = factors[0] * terms[0].float()
        for factor, term in zip(factors[1:], terms[1:], strict=True):
            c = c + factor * term.float()
        columns = {
            0: [(c - p).abs(), c.abs(), 0 * c],
            1: [(c - p).square(), c.square(), 0 * c],
            2: [c * p, c.square(), p.square()],
        }[metric]
    sums = [t.double().sum((1, 2, 3)) for t in columns]
    magnitudes = [t.double().abs().sum((1, 2, 3)) for t in columns]
    for s in strides:
        later, earlier = p[:, s:], p[:, :-s]
        change = (later - earlier).abs().double().sum((1, 2, 3))
        size = sum(t.double().abs().sum((1, 2, 3)) for t in (later, earlier))
        sums += [change, size]
        magnitudes += [change, size]
    return new, torch.stack(sums, 1), torch.stack(magnitudes, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_distance_update(instruction_set: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    modes = itertools.product(METRICS.values(), (NOTHING, PREVIOUS), range(4), (True, False))
    for number, (metric, holds, count, has_input) in enumerate(modes):
        start, x_out, *others = (torch.randn(shape).to(dtype) for _ in range(6))
        x_in, previous = others[3] if has_input else None, others[:count]
        terms = count + (holds == PREVIOUS)
        coefficients = None if terms < 2 and number % 2 else torch.randn(terms)
        strides = [(), (1,), (1, 2, 7)][number % 3]
        arguments = (x_out, x_in, previous, coefficients, strides, metric, holds)
        new, sums, magnitudes = expected_distance_update(start, *arguments)
        slot = start.clone()
        result = distance_update(slot, *arguments, threads=1 + number % 2)
        assert_same_bits(slot, new)
        assert bool(((result - sums).abs() <= SUM_ERROR * magnitudes).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 5, 33, 70), (2, 5, 33, 96), (2, 5, 40, 5), (1, 3, 2, 5000)])
def test_sums_are_the_same_however_they_are_computed(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    values = [torch.randn(shape).to(dtype) for _ in range(4)]
    coefficients = torch.tensor([0.75, 1.25])
    for strides, metric in [((), 0), ((1, 2), 1), ((1,), 2)]:
        results = []
        for name, threads in itertools.product(_C.instruction_sets(), (1, 2, 3, 8)):
            _C.set_instruction_set(name)
            for slot, x_out, x_in, previous in zip(*map(memory_layouts, values), strict=True):
                sums = distance_update(
                    slot, x_out, x_in, [previous], coefficients, strides, metric, threads=threads
                )
                results.append((sums, slot))
        for sums, slot in results[1:]:
            assert_same_bits(sums, results[0][0])
            assert_same_bits(slot, results[0][1])


def test_many_tasks_in_any_number_of_threads(instruction_set: str) -> None:
    shape = (2, 6, 300, 256)
    start, x_out, x_in = (torch.randn(shape).bfloat16() for _ in range(3))
    results = []
    for threads in (1, 2, 5, 1, 16):
        slot = start.clone()
        results.append((distance_update(slot, x_out, x_in, strides=(1,), threads=threads), slot))
    for sums, slot in results[1:]:
        assert_same_bits(sums, results[0][0])
        assert_same_bits(slot, results[0][1])


def cancelling_terms(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return c and p whose products add up to zero, except for float64 rounding.

    Each run of 128, which is added in float32, has a negative twin elsewhere. The runs vary over
    2^40: with their 24 bits, that is more than float64 holds.
    """
    generator = torch.Generator().manual_seed(3)
    half = math.prod(shape) // 256, 128
    exponents = torch.randint(-10, 11, (2, half[0], 1), generator=generator)
    # Not randn, whose values differ with the instructions that torch uses on a processor.
    numbers = torch.randint(-(2**20), 2**20, (2, *half), generator=generator).float() / 2**20
    c, p = numbers.ldexp(exponents)
    order = torch.randperm(half[0], generator=generator)
    return torch.cat([c, c[order]]).view(shape), torch.cat([p, -p[order]]).view(shape)


@pytest.mark.parametrize("strides", [(), (1,)])
def test_the_order_of_the_float64_sums_is_the_same(strides: tuple[int, ...]) -> None:
    c, p = cancelling_terms((1, 6, 300, 256))
    results = []
    for name, threads in itertools.product(_C.instruction_sets(), (1, 2, 3, 5)):
        _C.set_instruction_set(name)
        results.append(
            distance_update(
                c.clone(), p, strides=strides, metric=METRICS["cosine"], threads=threads
            )
        )
    assert 0 < abs(results[0][0, 0]) < 1e-12 * (c * p).abs().sum()
    for sums in results[1:]:
        assert_same_bits(sums, results[0])


@pytest.mark.parametrize(
    "dtypes", [d for d in itertools.product(DTYPES, DTYPES, DTYPES) if len({*d}) > 1], ids=str
)
def test_dtypes_may_differ(instruction_set: str, dtypes: tuple[torch.dtype, ...]) -> None:
    start, x_out, x_in = (torch.randn(2, 3, 4, 37).to(dtype) for dtype in dtypes)
    previous = [torch.randn(start.shape).to(dtypes[1])]
    for strides in ((), (1, 2)):
        arguments = (x_out, x_in, previous, torch.tensor([2.0, -0.7]), strides, 0, PREVIOUS)
        new, sums, magnitudes = expected_distance_update(start, *arguments)
        slot = start.clone()
        result = distance_update(slot, *arguments)
        assert_same_bits(slot, new)
        assert bool(((result - sums).abs() <= SUM_ERROR * magnitudes).all())


def test_an_infinite_coefficient_does_not_make_nan_of_the_padding(instruction_set: str) -> None:
    slot = torch.ones(1, 1, 1, 5)
    sums = distance_update(slot, torch.ones_like(slot), coefficients=torch.tensor([math.inf]))
    assert sums.tolist() == [[math.inf, math.inf, 0.0]]


def test_an_undefined_slot_is_not_read(instruction_set: str) -> None:
    slot, x_out = torch.full((1, 2, 3, 40), torch.nan), torch.randn(1, 2, 3, 40)
    sums = distance_update(slot, x_out, strides=(1,), slot_holds=NOTHING)
    assert torch.equal(slot, x_out)
    assert bool(sums.isfinite().all())


def test_a_nan_stays_in_its_sample(instruction_set: str) -> None:
    slot, x_out = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    x_out[0, 1, 2, 3] = torch.nan
    sums = distance_update(slot, x_out, strides=(1,))
    assert sums.isnan().tolist() == [[True, False, False, True, True], [False] * 5]


def a_job(rounds: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    start, x_out = (torch.randn(1, 4, 500, 256, generator=generator) for _ in range(2))
    results = []
    for _ in range(rounds):
        slot = start.clone()
        results.append(distance_update(slot, x_out, strides=(1,), threads=2))
    return results


def test_two_python_threads_at_once(instruction_set: str) -> None:
    expected, results = a_job(1)[0], []
    threads = [threading.Thread(target=lambda: results.extend(a_job(8))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 24
    for result in results:
        assert_same_bits(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    start, x_out, slot = (torch.randn(1, 4, 500, 256) for _ in range(3))
    operands = map(view, (slot, x_out))
    arguments = (*operands, None, [], 0, NOTHING, [1], 0, None, [])
    expected, sums = distance_update(start, x_out, strides=(1,), slot_holds=NOTHING), start[0, 0]
    _C.distance_update(*arguments, sums.data_ptr(), 4)
    child = os.fork()
    if child == 0:  # No torch here: its own threads do not survive a fork.
        _C.distance_update(*arguments, sums.data_ptr(), 4)
        os._exit(0 if sums.view(-1)[:5].tolist() == expected.view(-1).tolist() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slot_holds": 2}, "slot_holds must be"),
        ({"metric": 3}, "metric must be"),
        ({"previous": [torch.zeros(1, 1, 1, 1)] * 4}, "at most 3"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    slot = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match=message):
        distance_update(slot, slot.clone(), **arguments)
