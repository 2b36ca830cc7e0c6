"""The expected error of a profile, and the products that it takes, against explicit residuals."""

from __future__ import annotations

import numpy as np
import pytest

from adacache_kernels.schedule.profile import Profile

STEPS = 9
SPANS = {"first": 120, "second": 80}
"""Elements of the residual of each span."""


def residuals(seed: int) -> dict[str, np.ndarray]:
    """Return the residuals of each span, [steps, elements]: a drift, and noise in every step."""
    draw = np.random.default_rng(seed)
    time = np.linspace(0, 1, STEPS)[:, None]
    return {
        name: draw.normal(size=n) + time * draw.normal(size=n) + 0.3 * draw.normal(size=(STEPS, n))
        for name, n in SPANS.items()
    }


def profile_of(rows: dict[str, np.ndarray]) -> Profile:
    whole = np.concatenate(list(rows.values()), axis=1)
    return Profile(
        model={"class": "Made", "config": {}},
        scheduler=None,
        num_steps=STEPS,
        gram=whole @ whole.T,
        span_grams={name: each @ each.T for name, each in rows.items()},
        sensitivity=np.ones(STEPS),
    )


@pytest.mark.parametrize("history", [[3, 2, 1], [6, 4, 3, 1], [8, 5, 2], [7]])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_it_is_the_mean_over_the_spans_of_one_forecast(order: int, history: list[int]) -> None:
    """The forecast is fitted to all spans at once, from the newest computed steps."""
    rows, step = residuals(order), history[0] + 1
    newest = [s - 1 for s in history[: order + 1]]
    whole = np.concatenate(list(rows.values()), axis=1)
    weights = np.linalg.lstsq(whole[newest].T, whole[step - 1], rcond=None)[0]
    ratios = []
    for each in rows.values():
        forecast = weights @ each[newest]
        ratios.append(np.linalg.norm(each[step - 1] - forecast) / np.linalg.norm(forecast))
    found = profile_of(rows).expected_error(order, history, step)
    assert found == pytest.approx(np.mean(ratios), rel=1e-3)
