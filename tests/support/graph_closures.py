"""Graphs for a machine without a GPU: closures that run when they are launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from torch import Tensor

from adacache_kernels.engine.decision import step_graphs


@dataclass
class Closures:
    """A `Capture` that makes closures; it counts what is recorded and launched."""

    recorded: int = 0
    launched: list[str] = field(default_factory=list)

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        return run

    def choose(
        self, flag: Tensor, taken: Callable[[], None], otherwise: Callable[[], None]
    ) -> ClosureChoice:
        return ClosureChoice(self, flag, taken, otherwise)


@dataclass
class ClosureChoice:
    capture: Closures
    flag: Tensor
    taken: Callable[[], None]
    otherwise: Callable[[], None]

    def launch(self) -> None:
        is_taken = bool(self.flag)
        self.capture.launched.append("taken" if is_taken else "otherwise")
        (self.taken if is_taken else self.otherwise)()


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Closures]:
    closures = Closures()
    monkeypatch.setattr(step_graphs, "make_capture", lambda device: closures)
    yield closures
