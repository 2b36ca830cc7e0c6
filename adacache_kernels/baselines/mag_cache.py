"""MagCache: decide by ratios of the residual from step to step that are measured beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..config.validation import check_finite, check_int
from .base import ALL_BLOCKS, BaselineConfig, BlockPolicy, Blocks, parse_numbers


@dataclass(frozen=True, kw_only=True)
class MagCacheConfig(BaselineConfig):
    """MagCache (arXiv 2506.09045; rule as in Zehong-Ma/MagCache).

        ratio <- ratio * ratios[s];  skipped <- skipped + 1;  error <- error + |1 - ratio|
        reuse  <=>  error < threshold  and  skipped <= max_skips
        in a computed step, ratio <- 1, error <- 0, skipped <- 0

    This holds for every step s (from 0) after the first `int(retention * steps)` steps, which are
    computed.

    Args:
        ratios: one for each step, from `measure_ratios`: the mean over the tokens of the norm of
            the residual of all blocks in this step over that in the step before. The first is not
            used. They hold for one model, scheduler and number of steps.
        threshold: a step is reused if the accumulated error is below it; 0 reuses nothing.
        max_skips: the most reused steps in a row.
        retention: share of the steps, at the beginning, that are always computed.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
            The number of ratios is checked when a generation begins.
    """

    ratios: tuple[float, ...] = ()
    threshold: float = 0.12
    max_skips: int = 2
    retention: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check = partial(check_finite, "ratios", at_least=0.0)
        object.__setattr__(self, "ratios", parse_numbers("ratios", self.ratios, check))
        if not self.ratios:
            raise ValueError(
                "ratios is empty; it must have one number for each step, from measure_ratios()"
            )
        check_finite("threshold", self.threshold, at_least=0.0)
        check_int("max_skips", self.max_skips, at_least=1)
        check_finite("retention", self.retention, at_least=0.0, at_most=1.0)
        if self.num_inference_steps is not None:
            self.policy(self.num_inference_steps)

    def policy(self, num_steps: int) -> MagCachePolicy:
        """Return the policy of one generation; `num_steps` is 0 if it is not known yet.

        Raises:
            ValueError: the number of ratios is not that of the steps.
        """
        if num_steps not in (0, len(self.ratios)):
            raise ValueError(
                f"ratios has {len(self.ratios)} numbers, but the generation has {num_steps} steps; "
                "measure them for this number of steps with measure_ratios()"
            )
        return MagCachePolicy(self)


class MagCachePolicy(BlockPolicy):
    """The schedule of one generation; call `reuses` once for each step."""

    def __init__(self, config: MagCacheConfig) -> None:
        self._config = config
        self._retained = int(config.retention * len(config.ratios))
        self._ratio, self._error, self._skipped = 1.0, 0.0, 0

    def reuses(self, step: int) -> Blocks | None:
        """Return all blocks, None in a computed step."""
        if step == 1 or step <= self._retained:
            return None
        self._ratio *= self._config.ratios[step - 1]
        self._skipped += 1
        self._error += abs(1.0 - self._ratio)
        small = self._error < self._config.threshold
        return ALL_BLOCKS if small and self._skipped <= self._config.max_skips else None

    def stores(self, step: int) -> Blocks | None:
        """Return all blocks."""
        return ALL_BLOCKS

    def computed(self, step: int) -> None:
        """Start to accumulate again."""
        self._ratio, self._error, self._skipped = 1.0, 0.0, 0
