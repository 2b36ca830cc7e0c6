"""The protocol of every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .clocks.clock import StepClock
from .summary import Summary


class AnyEngine(Protocol):
    """What a patched model's forward goes through."""

    clock: StepClock

    def forward(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """One forward call of the model."""

    def reset(self) -> None:
        """Forget the generation."""

    def summary(self) -> Summary:
        """What happened in the last generation."""
