"""TeaCache: decide by the accumulated change of the first block's input or timestep embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ..config.validation import check_choice, check_finite, check_int
from .base import BaselineConfig, ChangePolicy, parse_numbers, preset

Watched = Literal["input", "timestep"]
UNSCALED = (1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class TeaCacheConfig(BaselineConfig):
    """TeaCache (arXiv 2411.19108; rule and coefficients as in ali-vilab/TeaCache).

        change = mean |e - e'| / mean |e'|;  total <- total + polynomial(change)
        reuse  <=>  total < threshold;  in a computed step, total <- 0

    Here `e` is the watched tensor at the first block, and `e'` the same tensor in the step before.
    The first and the last steps are computed. A reused step adds the residual of all blocks.

    The change is read in the middle of the forward call: the host waits for the device once in
    every step that may be reused. The first guidance branch decides for the whole step; in the
    originals each branch decides for itself.

    Args:
        threshold: a step is reused if the accumulated change is below it; 0 reuses nothing.
        coefficients: those of the polynomial, the highest power first, fitted for one model;
            (1, 0) leaves the change as it is.
        watched: "input", the input of the first block's attention, after norm and modulation; or
            "timestep", the timestep embedding that enters the block.
        computed_first: number of first steps that are always computed.
        computed_last: number of last steps that are always computed.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    threshold: float = 0.1
    coefficients: tuple[float, ...] = UNSCALED
    watched: Watched = "input"
    computed_first: int = 1
    computed_last: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("threshold", self.threshold, at_least=0.0)
        check = partial(check_finite, "coefficients", at_least=-math.inf)
        given = parse_numbers("coefficients", self.coefficients, check)
        if not given:
            raise ValueError("coefficients is empty; (1, 0) leaves the change as it is")
        object.__setattr__(self, "coefficients", given)
        check_choice("watched", self.watched, ("input", "timestep"))
        check_int("computed_first", self.computed_first, at_least=1)
        check_int("computed_last", self.computed_last, at_least=0)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TeaCacheConfig:
        """Return published settings: "latte-slow", "latte-fast", "wan-1.3b", "wan-14b".

        Raises:
            ValueError: `name` is not a preset; names the presets.
        """
        return replace(PRESETS[preset(name, PRESETS)], **overrides)

    def policy(self, num_steps: int) -> TeaCachePolicy:
        """Return the policy of one generation."""
        return TeaCachePolicy(self, num_steps)


class TeaCachePolicy(ChangePolicy):
    """The schedule of one generation; call `reuses` once for each step."""

    def __init__(self, config: TeaCacheConfig, num_steps: int) -> None:
        self._config = config
        self._last_reusable = num_steps - config.computed_last
        self._total = 0.0

    def asks(self, step: int) -> bool:
        """Return True if `step` may be reused."""
        return self._config.computed_first < step <= self._last_reusable

    def reuses(self, step: int, change: float | None) -> bool:
        """Return True if the accumulated change is below the threshold, which NaN is not."""
        if change is None or not self.asks(step):
            self._total = 0.0
            return False
        self._total += polynomial(self._config.coefficients, change)
        if self._total < self._config.threshold:
            return True
        self._total = 0.0
        return False


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Return the value of a polynomial at `x`; the coefficient of the highest power is first."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


LATTE = TeaCacheConfig(
    coefficients=(-2.46434137e03, 3.08044764e02, 8.07447667e01, -4.11385132e00, 1.11001402e-01)
)
PRESETS: dict[str, TeaCacheConfig] = {
    "latte-slow": replace(LATTE, threshold=0.1),
    "latte-fast": replace(LATTE, threshold=0.2),
    "wan-1.3b": TeaCacheConfig(
        threshold=0.08,
        watched="timestep",
        computed_first=5,
        computed_last=0,
        coefficients=(
            -5.21862437e04,
            9.23041404e03,
            -5.28275948e02,
            1.36987616e01,
            -4.99875664e-02,
        ),
    ),
    "wan-14b": TeaCacheConfig(
        threshold=0.2,
        watched="timestep",
        computed_first=5,
        computed_last=0,
        coefficients=(
            -3.03318725e05,
            4.90537029e04,
            -2.65530556e03,
            5.87365115e01,
            -3.15583525e-01,
        ),
    ),
}
