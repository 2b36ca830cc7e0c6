"""Forecast a module's output from its finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...models.block_calls import versions
from ..counters import tensors_in


@dataclass
class StoredOutput:
    """The output of a module in one step, with its finite differences.

        factors[0] = output
        factors[i + 1] = (factors[i] - factors[i] of the output before) / (step - step before)

    Args:
        step: the step in which the module ran.
        factors: the output, then the differences. Each is a tensor, or a list or tuple of tensors.
        versions: the versions of these tensors when they were stored.
    """

    step: int
    factors: list[Any]
    versions: list[int]

    @property
    def value(self) -> Any:
        """Return the output of the module."""
        return self.factors[0]

    @property
    def is_intact(self) -> bool:
        """Return True if nothing has been written into the tensors since they were stored."""
        return self.versions == versions(tensors_in(self.factors))

    def at(self, step: int) -> Any:
        """Return the forecast: the sum over i of factors[i] * (step - self.step)^i / i!."""
        forecast, elapsed = _safe(self.value), step - self.step
        for order, factor in enumerate(self.factors[1:], start=1):
            forecast = _plus(forecast, factor, elapsed**order / math.factorial(order))
        return forecast


def store_output(
    output: Any, step: int, before: StoredOutput | None = None, order: int = 0
) -> StoredOutput:
    """Return an output of `step` with its differences.

    Args:
        output: a tensor, or a list or tuple of tensors.
        step: the step in which the module ran.
        before: the stored output of the run before.
        order: the most differences; there are at most as many as `before` has factors.
    """
    factors = [_safe(output)]
    if before is not None and before.is_intact:
        for factor in before.factors[:order]:
            factors.append(_slope(factors[-1], factor, step - before.step))
    return StoredOutput(step, factors, versions(tensors_in(factors)))


def _safe(output: Any) -> Any:
    """Return copies of inference tensors, because a later write into them cannot be seen."""
    if isinstance(output, Tensor):
        return output.clone() if output.is_inference() else output
    return type(output)([_safe(item) for item in output])


def _plus(base: Any, change: Any, weight: float) -> Any:
    if isinstance(base, Tensor):
        return base.add(change, alpha=weight)
    pairs = zip(base, change, strict=True)
    return type(base)([_plus(one, other, weight) for one, other in pairs])


def _slope(now: Any, before: Any, elapsed: int) -> Any:
    if isinstance(now, Tensor):
        return (now - before) / elapsed
    return type(now)([_slope(a, b, elapsed) for a, b in zip(now, before, strict=True)])
