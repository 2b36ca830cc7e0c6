"""reference.py against an oracle in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adacache_kernels import ops
from adacache_kernels.ops import reference
from adacache_kernels.ops.decide_settings import DecideStep
from tests.support.oracles.decision_check import assert_decision
from tests.support.oracles.ops_in_float64 import exact_decision, exact_forecast, exact_sums

EPS = torch.finfo(torch.float32).eps
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def within(actual: torch.Tensor, exact: torch.Tensor, bound: torch.Tensor | float) -> bool:
    return bool(((actual.double() - exact.double()).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("slot_holds", ops.SLOT_HOLDS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_distance_update(dtype: torch.dtype, metric: str, slot_holds: str, count: int) -> None:
    slot, x_out, x_in, *previous = (torch.randn(2, 5, 3, 7).to(dtype) for _ in range(3 + count))
    terms = [*previous, slot.clone()] if slot_holds == "previous" else previous
    coefficients = torch.randn(len(terms)) if count else None
    exact = x_out.double() - x_in.double()
    arguments = (x_out, x_in, previous, coefficients, (1, 3, 9), metric, slot_holds)
    sums = reference.distance_update(slot, *arguments)
    assert within(slot, exact, 2 * torch.finfo(dtype).eps * exact.abs().max())
    forecast = exact_forecast(terms, coefficients)
    expected, magnitudes = exact_sums(forecast, slot, (1, 3, 9), metric)
    assert sums.dtype == torch.float32
    # Each float32 term is rounded at most three times (the differences are squared), the sum once;
    # each term of the forecast twice before, and a square doubles that.
    magnitude = 1 + (0 if coefficients is None else float(coefficients.abs().sum()))
    rounding = 2 * EPS * (magnitude * largest(slot, *terms)) ** 2 * slot[0].numel()
    assert within(sums[:, 0], expected, 4 * EPS * magnitudes + count * rounding)


def largest(*tensors: torch.Tensor) -> float:
    return max(1.0, *(float(tensor.abs().max()) for tensor in tensors))


def test_distance_update_of_a_given_residual() -> None:
    slot, residual = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    reference.distance_update(slot, residual, None, [], None, (), "l1", "previous")
    assert torch.equal(slot, residual)


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_update(dtype: torch.dtype) -> None:
    slot, x_out, x_in = (torch.randn(4, 9).to(dtype) for _ in range(3))
    exact = x_out.double() - x_in.double()
    reference.residual_update(slot, x_out, x_in)
    assert within(slot, exact, 2 * torch.finfo(dtype).eps * exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("flag", [0, 1, -7])
def test_conditional_add(dtype: torch.dtype, count: int, flag: int) -> None:
    x, *residuals = (torch.randn(4, 9).to(dtype) for _ in range(1 + count))
    coefficients = torch.randn(count)
    exact = x.double()
    for coefficient, residual in zip(coefficients, residuals, strict=True):
        exact = exact + coefficient.double() * residual.double()
    before, out = x.clone(), torch.empty_like(x)
    flags = torch.tensor([flag], dtype=torch.int32)
    reference.conditional_add(out, x, residuals, [None] * count, coefficients, flags)
    assert torch.equal(x, before)
    if flag == 0:
        assert torch.equal(out, before)
    else:
        assert within(out, exact, 4 * torch.finfo(dtype).eps * exact.abs().max())


@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_conditional_add_of_eight_bits(stored: torch.dtype) -> None:
    x, values = torch.randn(4, 9), torch.randn(4, 9)
    scale = values.abs().amax(dim=-1, keepdim=True) / (127 if stored == torch.int8 else 448)
    scaled = values / scale
    residual = (scaled.round() if stored == torch.int8 else scaled).to(stored)
    exact = x.double() + 2 * residual.double() * scale.double()
    # Half a step of the largest value: 1/127, or the last of 3 bits.
    assert within(exact, x + 2 * values, 2 * values.abs().max() / 16)
    flag = torch.ones(1, dtype=torch.int32)
    reference.conditional_add(x, x, [residual], [scale], torch.tensor([2.0]), flag)
    assert within(x, exact, 4 * EPS * exact.abs().max())


def test_a_residual_that_is_not_added_does_no_harm() -> None:
    x, nan = torch.zeros(3), torch.full((3,), torch.nan)
    off = torch.zeros(1, dtype=torch.int32)
    reference.conditional_add(x, x, [nan], [None], torch.ones(1), off)
    assert torch.equal(x, torch.zeros(3))


USUAL_SUM = st.floats(0.5, 1000.0, width=32)
ANY_SUM = st.one_of(USUAL_SUM, st.sampled_from([0.0, math.inf, math.nan, 2.0**100, 2.0**-100]))


@st.composite
def decisions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw arguments of decide, with zeros, infinities and NaN among the sums."""
    locations, batch, strides = draw(st.tuples(*[st.integers(1, 3)] * 3))
    a_sum = draw(st.sampled_from([USUAL_SUM, USUAL_SUM, ANY_SUM]))
    sample = st.lists(a_sum, min_size=3 + 2 * strides, max_size=3 + 2 * strides)
    location = st.lists(sample, min_size=batch, max_size=batch)
    sums = draw(st.lists(location, min_size=locations, max_size=locations))
    thresholds = sorted(draw(st.sets(st.floats(0.0078125, 4.0, width=32), min_size=1, max_size=5)))
    rates = draw(st.lists(st.integers(1, 12), min_size=len(thresholds), max_size=len(thresholds)))
    step = draw(st.integers(1, 1000))
    motion = draw(st.floats(0.0, 8.0, width=32))
    return {
        "state": [5.0, draw(st.integers(0, step)), 0.5, 1.0, 1.0, 1.0, motion, 0.0, 0.5, 6.0],
        "sums": sums,
        "codebook": [(t, float(r)) for t, r in zip(thresholds, rates, strict=True)],
        "step": step,
        "metric": draw(st.sampled_from(list(ops.METRICS))),
        "has_previous": draw(st.sampled_from([True, True, True, False])),
        "apply_moreg": draw(st.booleans()),
        "in_window": draw(st.booleans()),
    }


def by_reference(
    state: torch.Tensor,
    sums: torch.Tensor,
    codebook: torch.Tensor,
    chosen: ops.DecideSettings,
    **values: Any,
) -> None:
    reference.decide(state, sums, codebook, chosen, DecideStep(**values))


DECIDE: dict[str, Any] = {"reference": by_reference, "op": ops.decide}


@pytest.mark.parametrize("implementation", DECIDE)
@settings(deadline=None, max_examples=300, derandomize=True)
@given(arguments=decisions())
def test_decide(implementation: str, arguments: dict[str, Any]) -> None:
    state = torch.tensor(arguments["state"])
    sums = torch.tensor(arguments["sums"]).unsqueeze(2)
    codebook = torch.tensor(arguments["codebook"]).T
    chosen = ops.DecideSettings(arguments["metric"], arguments["apply_moreg"])
    situation = {name: arguments[name] for name in ("step", "has_previous", "in_window")}
    DECIDE[implementation](state, sums, codebook, chosen, **situation)
    thresholds = [threshold for threshold, _ in arguments["codebook"]]
    assert_decision(state.tolist(), exact_decision(**arguments), thresholds)


def decided(implementation: str, sums: list[float], **options: Any) -> list[float]:
    """Return the state after a decision at step 1 about one location and one sample."""
    state, codebook = ops.new_state("cpu"), torch.tensor([[0.125, 0.25], [6.0, 4.0]])
    in_window = options.pop("in_window", False)
    chosen = ops.DecideSettings(**{"moreg_a": 0.5, "moreg_b": 2.0, **options})
    sums_of_one = torch.tensor([[[sums]]])
    DECIDE[implementation](state, sums_of_one, codebook, chosen, step=1, in_window=in_window)
    return state.tolist()


@pytest.mark.parametrize("implementation", DECIDE)
@pytest.mark.parametrize(
    ("distance", "rate"),
    [(0.0, 6), (0.12499, 6), (0.125, 4), (0.126, 4), (0.24999, 4), (0.25, 4), (7.0, 4)],
)
def test_a_rate_holds_below_its_threshold(implementation: str, distance: float, rate: int) -> None:
    state = decided(implementation, [distance, 1.0, 0.0])
    assert (state[ops.State.RATE], state[ops.State.FLAGS]) == (rate, 0)


@pytest.mark.parametrize("implementation", DECIDE)
def test_motion_that_ends_raises_the_distance_too(implementation: str) -> None:
    options = {"apply_moreg": True, "in_window": True}
    state = decided(implementation, [1.0, 8.0, 0.0, 1.0, 4.0], **options)
    # motion 1/4, score 1/4, gradient 10 * (1/4 - 1): 0.125 * (0.25 + 7.5)
    assert state[ops.State.MOTION] == 0.25
    assert state[ops.State.DISTANCE] == 0.96875


@pytest.mark.parametrize("implementation", DECIDE)
def test_an_undefined_motion_gives_no_distance(implementation: str) -> None:
    options = {"apply_moreg": True, "in_window": True, "moreg_b": 0.0}
    state = decided(implementation, [1.0, 8.0, 0.0, 0.0, 0.0], **options)
    assert state[ops.State.FLAGS] == ops.Flag.ZERO_DENOMINATOR
    assert math.isnan(state[ops.State.DISTANCE])
    assert state[ops.State.RATE] == 1
