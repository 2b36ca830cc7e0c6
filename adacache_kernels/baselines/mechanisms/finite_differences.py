"""What a module returned, with its finite differences, and what they forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...models.block_calls import version
from ..counters import tensors_in


@dataclass
class KeptOutput:
    """What a module returned in a step, and how it has been changing.

        factors[0] = output
        factors[i + 1] = (factors[i] - factors[i] of the output before) / (step - step before)

    Args:
        step: in which the module ran.
        factors: its output, then the differences; a tensor, or a list or tuple of tensors, each.
        versions: that the tensors had then.
    """

    step: int
    factors: list[Any]
    versions: list[int]

    @property
    def value(self) -> Any:
        """What the module returned."""
        return self.factors[0]

    @property
    def is_intact(self) -> bool:
        """Whether nobody has written into it since."""
        return self.versions == [version(tensor) for tensor in tensors_in(self.factors)]

    def at(self, step: int) -> Any:
        """sum over i of factors[i] * (step - self.step)^i / i!"""
        forecast, elapsed = self.value, step - self.step
        for order, factor in enumerate(self.factors[1:], start=1):
            forecast = _plus(forecast, factor, elapsed**order / math.factorial(order))
        return forecast


def kept_output(
    output: Any, step: int, before: KeptOutput | None = None, order: int = 0
) -> KeptOutput:
    """An output of `step` with up to `order` differences, as many as `before` has factors for."""
    factors = [output]
    if before is not None and before.is_intact:
        for factor in before.factors[:order]:
            factors.append(_slope(factors[-1], factor, step - before.step))
    return KeptOutput(step, factors, [version(tensor) for tensor in tensors_in(factors)])


def _plus(base: Any, change: Any, weight: float) -> Any:
    if isinstance(base, Tensor):
        return base.add(change, alpha=weight)
    pairs = zip(base, change, strict=True)
    return type(base)([_plus(one, other, weight) for one, other in pairs])


def _slope(now: Any, before: Any, elapsed: int) -> Any:
    if isinstance(now, Tensor):
        return (now - before) / elapsed
    return type(now)([_slope(a, b, elapsed) for a, b in zip(now, before, strict=True)])
