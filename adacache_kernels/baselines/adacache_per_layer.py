"""AdaCache per layer: a schedule of its own for every block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config.validation import check_choice
from ..schedule import AdaCachePolicy, Decision
from ..schedule.codebook import Codebook, parse_codebook, plain_pairs
from ..schedule.presets import PRESETS, preset_codebook
from .base import BaselineConfig


@dataclass(frozen=True, kw_only=True)
class AdaCachePerLayerConfig(BaselineConfig):
    """AdaCache (arXiv 2411.02397) per layer: each block has its own distance and rate.

        distance_i = ||c - p||_1 / ||c||_1 / k;  block i runs again in rate(codebook, distance_i)
        steps, and in the first and the last two steps of a generation

    Here `p` is the residual of block i for the video now, and `c` its residual `k` steps ago. The
    distances of a step are read together when the next step begins: one host wait per step.

    Args:
        codebook: the name of a preset ("fast", "slow"), or `{threshold: rate}`.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
    """

    codebook: str | Mapping[float, int] | Iterable[tuple[float, int]] = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.codebook, str):
            check_choice("codebook", self.codebook, PRESETS)
        else:
            pairs = plain_pairs(parse_codebook(self.codebook))
            object.__setattr__(self, "codebook", tuple(tuple(pair) for pair in pairs))

    def codebook_for(self, num_steps: int) -> Codebook:
        """Return the codebook for a generation of `num_steps`."""
        if isinstance(self.codebook, str):
            return preset_codebook(self.codebook, num_steps)
        return parse_codebook(self.codebook)

    def policy(self, num_steps: int) -> AdaCachePerLayerPolicy:
        """Return the policy of one block in one generation."""
        return AdaCachePerLayerPolicy(self.codebook_for(max(1, num_steps)), num_steps)


class AdaCachePerLayerPolicy:
    """The schedule of one block in one generation."""

    def __init__(self, codebook: Codebook, num_steps: int) -> None:
        self._codebook = codebook
        self._whole = AdaCachePolicy(num_steps)
        self._last: Decision | None = None

    def reuses(self, step: int) -> bool:
        """Return True if the block adds its stored residual in `step`."""
        return not self._whole.compute(step, self._last)

    def observe(self, step: int, distance: float | None) -> Decision:
        """Return the decision after the block ran in `step`; without a distance, its rate is 1."""
        rate = 1 if distance is None else self._codebook.rate(distance)
        self._last = Decision(step, rate, distance, distance, 1.0)
        return self._last
