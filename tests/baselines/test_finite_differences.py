"""Forecasts from finite differences by hand, and TaylorSeer on tiny models with an oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.baselines.mechanisms.finite_differences import StoredOutput, store_output
from tests.support.baseline_runs import STEPS, assert_close, assert_equal, run_patched
from tests.support.oracles.baselines import MODULES, Steps, installed
from tests.support.tiny_models.common_models import TINY, denoise


def stored_at(values: dict[int, Any], order: int) -> StoredOutput:
    """Return the stored output after runs in these steps."""
    stored = None
    for step, value in values.items():
        stored = store_output(value, step, stored, order)
    assert stored is not None
    return stored


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (0, [6.0, 6.0]),
        (1, [6 + 1.5, 6 + 1.5 * 2]),
        (2, [6 + 1.5 + 0.25 / 2, 6 + 1.5 * 2 + 0.25 * 4 / 2]),
        (3, [6 + 1.5 + 0.25 / 2, 6 + 1.5 * 2 + 0.25 * 4 / 2]),
    ],
)
def test_a_forecast_by_hand(order: int, expected: list[float]) -> None:
    """The outputs 1, 3, 6 in steps 2, 4, 6 have slopes 1 and 1.5, which have slope 0.25."""
    stored = stored_at({step: torch.tensor(x) for step, x in ((2, 1.0), (4, 3.0), (6, 6.0))}, order)
    assert [stored.at(step).item() for step in (7, 8)] == expected


@pytest.mark.parametrize("steps", [(1, 2, 3), (1, 2, 6), (1, 3, 7)])
def test_order_1_is_exact_on_a_line_whatever_the_gaps(steps: tuple[int, ...]) -> None:
    stored = stored_at({step: (torch.tensor([2.0 * step, 3.0 - step]),) for step in steps}, 1)
    (forecast,) = stored.at(steps[-1] + 3)
    assert torch.equal(forecast, torch.tensor([2.0 * steps[-1] + 6, -float(steps[-1])]))


def test_order_2_misses_a_quadratic_by_the_slope_that_lags_half_a_gap() -> None:
    """The authors' formula takes backward differences as derivatives.

    Those of s^2 every h steps are 2 s - h and 2. The forecast of (s + x)^2 is too small by h x.
    """
    stored = stored_at({step: torch.tensor(float(step**2)) for step in (1, 3, 5)}, 2)
    assert [factor.item() for factor in stored.factors] == [25.0, 2 * 5 - 2, 2.0]
    assert [(5 + x) ** 2 - stored.at(5 + x).item() for x in (1, 2, 3)] == [2, 4, 6]


def test_nothing_is_differenced_with_an_output_that_was_written_into() -> None:
    output = torch.ones(2)
    before = store_output(output, 1)
    output += 1
    assert not before.is_intact
    assert len(store_output(torch.ones(2), 2, before, 1).factors) == 1


class ForecastModule:
    """An oracle that runs in the given steps, and else sums 1/i! x^i times the i-th difference."""

    def __init__(self, module: Any, steps: Steps, runs: set[int], order: int) -> None:
        self.module, self.original, self.steps, self.runs = module, module.forward, steps, runs
        self.order = order
        self.past: list[tuple[int, Any]] = []

    def difference(self, order: int, runs: list[tuple[int, Any]], part: int | None) -> Any:
        (_, now), step = runs[-1], runs[-1][0]
        if order == 0:
            return now if part is None else now[part]
        later = self.difference(order - 1, runs, part)
        return (later - self.difference(order - 1, runs[:-1], part)) / (step - runs[-2][0])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.steps.now in self.runs:
            self.past.append((self.steps.now, self.original(*args, **kwargs)))
            return self.past[-1][1]
        last = self.past[-1][1]
        if isinstance(last, tuple):
            return tuple(self.forecast(part) for part in range(len(last)))
        return self.forecast(None)

    def forecast(self, part: int | None) -> Any:
        x, factorial, total = self.steps.now - self.past[-1][0], (1, 1, 2), 0
        for order in range(min(self.order + 1, len(self.past))):
            total = total + self.difference(order, self.past, part) * (x**order / factorial[order])
        return total


@pytest.mark.parametrize("name", ["latte", "wan", "cogvideox"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_taylorseer_forecasts_every_module(name: str, order: int) -> None:
    tiny = TINY[name]
    model = tiny.build()
    steps, runs = Steps(model), {1, 3, 5, 7, 9}
    wrappers = [
        ForecastModule(getattr(block, module), steps, runs, order)
        for _, attribute, module in MODULES[name]
        for block in getattr(model, attribute)
    ]
    with installed(wrappers, steps):
        expected = denoise(tiny, model, STEPS)
    config = ak.baselines.TaylorSeerConfig(interval=2, order=order)
    found, summary = run_patched(name, config, model=model)
    (assert_close if order else assert_equal)(found, expected)
    assert summary.computed_steps == sorted(runs) and summary.recomputed == {}
    assert summary.units == (len(runs) * len(wrappers), STEPS * len(wrappers))
    assert summary.waits == []


@pytest.mark.parametrize("order", [0, 1, 2])
def test_taylorseer_holds_one_tensor_an_order_for_every_module(order: int) -> None:
    """The tiny Latte has 15 modules."""
    summary = run_patched("latte", ak.baselines.TaylorSeerConfig(interval=2, order=order))[1]
    one = run_patched("latte", ak.baselines.TaylorSeerConfig(interval=2, order=0))[1].cache_bytes
    assert summary.cache_tensors == 15 * (order + 1)
    assert summary.cache_bytes == one * (order + 1)


@pytest.mark.parametrize("order", [0, 1])
def test_a_write_that_inference_mode_hides_changes_no_stored_output(order: int) -> None:
    """The model writes into what its module returned, and into what was returned for it."""
    with torch.inference_mode():
        first, second = torch.randn(2, 3), torch.randn(2, 3)
        before = store_output((first,), 1)
        stored = store_output((second,), 2, before, order)
        expected = [stored.at(step)[0].clone() for step in (3, 4)]
        second.zero_()
        for step, value in zip((3, 4), expected, strict=True):
            (found,) = stored.at(step)
            assert torch.equal(found, value)
            found.zero_()
        assert torch.equal(stored.at(4)[0], expected[1])
