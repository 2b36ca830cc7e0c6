"""delta-DiT: reuse the residual of a range of blocks, another range early and late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config.validation import check_int
from .base import BaselineConfig, BlockPolicy, Blocks, parse_blocks, preset


@dataclass(frozen=True, kw_only=True)
class DeltaDiTConfig(BaselineConfig):
    """delta-DiT (arXiv 2406.01125).

        steps 1..b: the back blocks, steps after b: the front blocks;
        the first of every k steps of a phase runs all blocks and stores the residual of the range,
        the k - 1 steps after it add the residual instead of running the range

    Blocks are numbered over all lists of a model. Two blocks of interleaved lists, such as Latte's
    spatial and temporal ones, count as one.

    Args:
        boundary: b, the last step of the early phase.
        interval: k; 1 reuses nothing.
        front: the range of the late phase: (first block, the one after the last or None for the
            end). None: all blocks run in that phase.
        back: the range of the early phase.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
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
        """Return the settings of published comparisons; their early phase is not known.

        Raises:
            ValueError: `name` is not a preset; names the presets.
        """
        return replace(PRESETS[preset(name, PRESETS)], **overrides)

    def policy(self, _num_steps: int) -> DeltaDiTPolicy:
        """Return the policy of one generation."""
        return DeltaDiTPolicy(self)


@dataclass(frozen=True)
class DeltaDiTPolicy(BlockPolicy):
    """The schedule of one generation."""

    config: DeltaDiTConfig

    def reuses(self, step: int) -> Blocks | None:
        """Return the range of the phase, None in the first of every k steps."""
        within = step - 1 if self._is_early(step) else step - 1 - self.config.boundary
        return None if within % self.config.interval == 0 else self.stores(step)

    def stores(self, step: int) -> Blocks | None:
        """Return the range of the phase."""
        return self.config.back if self._is_early(step) else self.config.front

    def _is_early(self, step: int) -> bool:
        return step <= self.config.boundary


PRESETS: dict[str, DeltaDiTConfig] = {
    "open-sora": DeltaDiTConfig(boundary=25, front=(0, 5)),
    "open-sora-plan": DeltaDiTConfig(boundary=148, front=(0, 1)),
    "latte": DeltaDiTConfig(boundary=48, front=(0, 2)),
}
