"""AdaCache with a schedule for every block."""

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

    with `p` what block i adds to the video now, `c` what it added `k` steps ago. The distances of a
    step are read together when the next step begins, which is one wait of the host a step.

    Args:
        codebook: a preset's name ("fast", "slow"), or `{threshold: rate}`.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
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
        """The codebook for a generation of `num_steps`."""
        if isinstance(self.codebook, str):
            return preset_codebook(self.codebook, num_steps)
        return parse_codebook(self.codebook)

    def policy(self, num_steps: int) -> AdaCachePerLayerPolicy:
        """Of one block in one generation."""
        return AdaCachePerLayerPolicy(self.codebook_for(max(1, num_steps)), num_steps)


class AdaCachePerLayerPolicy:
    """The schedule of one block in one generation."""

    def __init__(self, codebook: Codebook, num_steps: int) -> None:
        self._codebook = codebook
        self._whole = AdaCachePolicy(num_steps)
        self._last: Decision | None = None

    def reuses(self, step: int) -> bool:
        """Whether the block adds what it added before."""
        return not self._whole.compute(step, self._last)

    def observe(self, step: int, distance: float | None) -> Decision:
        """The block has run in `step`; `distance` is None where nothing was stored."""
        rate = 1 if distance is None else self._codebook.rate(distance)
        self._last = Decision(step, rate, distance, distance, 1.0)
        return self._last
