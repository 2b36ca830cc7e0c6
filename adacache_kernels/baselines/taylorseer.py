"""TaylorSeer."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_int
from ..models.module_names import Kind
from ..schedule import evenly_spread
from .base import BaselineConfig


@dataclass(frozen=True, kw_only=True)
class TaylorSeerConfig(BaselineConfig):
    """TaylorSeer (arXiv 2503.06923; schedule and formula as in Shenyi-Z/TaylorSeer at 288776d).

        run in step s (from 0)  <=>  s < warmup  or  (s - warmup + 1) mod interval == 0
                                     or s is among the last `computed_last` steps
        otherwise a module gives sum over i <= order of F[i] * (s - s')^i / i!

    s' is the last step that ran, F[0] the module's output in it, before its gate, and
    F[i + 1] = (F[i] - F[i] of the run before s') / (s' - that run): finite differences. They begin
    with the last step of the warm-up, so that the order grows with the runs behind it. Every
    attention and MLP that is known is forecast, and each keeps order + 1 tensors of its own.

    The authors' names are `first_enhance` for warmup, `fresh_threshold` for interval and
    `max_order` for order; 1, 5 and 1 are what they set for HunyuanVideo and Wan 2.1. diffusers'
    `TaylorSeerCacheConfig` says `disable_cache_before_step`, `cache_interval`, `max_order`, and
    `disable_cache_after_step` for the step from which the last ones run. After its warm-up it runs
    where (s - warmup - 1) mod interval == 0, the same steps for an interval of 2 alone; it takes
    differences from the second step on, keeps them in bfloat16, and forecasts no MLP by default.
    Backward differences lag by half a gap, so that order 2 is not exact on a quadratic.

    Args:
        interval: one step in so many runs; 1 forecasts nothing.
        order: of the differences; 0 reuses outputs as they are.
        warmup: first steps that run.
        computed_last: last steps that run.
        computed_steps: run in so many steps, evenly spread (`evenly_spread`), whatever interval,
            warmup and computed_last say. None: as they say.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """

    interval: int = 5
    order: int = 1
    warmup: int = 1
    computed_last: int = 0
    computed_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("interval", self.interval, at_least=1)
        check_int("order", self.order, at_least=0)
        check_int("warmup", self.warmup, at_least=1)
        check_int("computed_last", self.computed_last, at_least=0)
        check_int("computed_steps", self.computed_steps, at_least=3, optional=True)
        steps = self.num_inference_steps
        if steps is not None:
            self.run_steps(steps)

    @property
    def kinds(self) -> dict[Kind, str]:
        """Kinds of modules that a model must have: none, those that it has are forecast."""
        return {}

    def run_steps(self, num_steps: int) -> set[int]:
        """Steps, counted from 1, in which modules run.

        Raises:
            ValueError: `computed_steps` is more than `num_steps`.
        """
        if self.computed_steps is not None:
            if self.computed_steps > num_steps:
                raise ValueError(
                    f"computed_steps is {self.computed_steps}, but the generation has {num_steps} "
                    "steps; it may be 3 to that number"
                )
            return set(evenly_spread(self.computed_steps, num_steps))
        return {
            step
            for step in range(1, num_steps + 1)
            if step <= self.warmup
            or (step - self.warmup) % self.interval == 0
            or step > num_steps - self.computed_last
        }

    def policy(self, num_steps: int) -> TaylorSeerPolicy:
        """Of one generation."""
        runs = self.run_steps(num_steps) if num_steps else set()
        # Evenly spread steps have no warm-up: differences begin with the second run.
        warmup = self.warmup if self.computed_steps is None else 1
        return TaylorSeerPolicy(runs, num_steps, self.order, warmup)


class TaylorSeerPolicy:
    """The schedule of one generation.

    Args:
        runs: steps in which modules run.
        num_steps: of the generation.
        order: of the differences.
        warmup: step from which they are taken.
    """

    by_timestep = False
    mean_after: int | None = None

    def __init__(self, runs: set[int], num_steps: int, order: int, warmup: int) -> None:
        self._runs = runs
        self._last_forecast = max(set(range(1, num_steps + 1)) - runs, default=0)
        self._order, self._warmup = order, warmup
        self._step = 0

    def begin_step(self, step: int, timestep: float | None) -> None:
        self._step = step

    def reuses(self, kind: Kind, block: int) -> bool:
        return self._step not in self._runs

    def keeps(self, kind: Kind, block: int) -> bool:
        return self._step < self._last_forecast

    def order(self, step: int) -> int:
        return self._order if step >= self._warmup else 0
