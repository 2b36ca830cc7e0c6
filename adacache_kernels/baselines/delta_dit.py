"""delta-DiT: what a range of blocks adds is kept, another range early and late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config.validation import check_int
from .base import BaselineConfig, Blocks, parse_blocks, preset


@dataclass(frozen=True, kw_only=True)
class DeltaDiTConfig(BaselineConfig):
    """delta-DiT (arXiv 2406.01125).

        steps 1..b: the back blocks, steps after b: the front blocks;
        the first of every k steps of a phase runs all blocks and keeps what the range added, the
        k - 1 after it add that instead of running the range

    Blocks are numbered over all lists of a model; those of two lists that take turns (Latte's
    spatial and temporal ones) count as one.

    Args:
        boundary: b.
        interval: k; 1 reuses nothing.
        front: (first block, the one after the last) of the late phase; None: all blocks run there.
        back: the same of the early phase.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """

    boundary: int = 25
    interval: int = 2
    front: Blocks | None = (0, 5)
    back: Blocks | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("boundary", self.boundary, at_least=0)
        check_int("interval", self.interval, at_least=1)
        for name in ("front", "back"):
            object.__setattr__(self, name, parse_blocks(name, getattr(self, name)))
        if self.front is None and self.back is None:
            raise ValueError("front and back are None; at least one must name blocks to reuse")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DeltaDiTConfig:
        """Settings of the comparisons, as far as they are known: the early phase has no range.

        Raises:
            ValueError: no such preset; names those that there are.
        """
        return replace(PRESETS[preset(name, PRESETS)], **overrides)

    def policy(self, _num_steps: int) -> DeltaDiTPolicy:
        """Of one generation."""
        return DeltaDiTPolicy(self)


@dataclass(frozen=True)
class DeltaDiTPolicy:
    """The schedule of one generation."""

    config: DeltaDiTConfig

    def reuses(self, step: int) -> Blocks | None:
        within = step - 1 if self._is_early(step) else step - 1 - self.config.boundary
        return None if within % self.config.interval == 0 else self.keeps(step)

    def keeps(self, step: int) -> Blocks | None:
        return self.config.back if self._is_early(step) else self.config.front

    def computed(self, step: int) -> None:
        """Step numbers alone decide."""

    def _is_early(self, step: int) -> bool:
        return step <= self.config.boundary


PRESETS: dict[str, DeltaDiTConfig] = {
    "open-sora": DeltaDiTConfig(boundary=25, front=(0, 5)),
    "open-sora-plan": DeltaDiTConfig(boundary=148, front=(0, 1)),
    "latte": DeltaDiTConfig(boundary=48, front=(0, 2)),
}
