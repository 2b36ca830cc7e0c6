"""TaylorSeer: forecast the outputs of attentions and MLPs from their finite differences."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.validation import check_int
from ..models.module_names import Kind
from ..schedule import evenly_spread
from .base import BaselineConfig, ModulePolicy


@dataclass(frozen=True, kw_only=True)
class TaylorSeerConfig(BaselineConfig):
    """TaylorSeer (arXiv 2503.06923; schedule and formula as in Shenyi-Z/TaylorSeer at 288776d).

        run in step s (from 0)  <=>  s < warmup  or  (s - warmup + 1) mod interval == 0
                                     or s is among the last `computed_last` steps
        otherwise a module returns sum over i <= order of F[i] * (s - s')^i / i!

    Here s' is the last step that ran and F[0] the module's output in it, before its gate. The
    finite differences are F[i + 1] = (F[i] - F[i] of the run before s') / (s' - that run). They
    begin with the last step of the warm-up, so the order grows with the number of runs after it.
    Every known attention and MLP is forecast, and each stores order + 1 tensors. Backward
    differences lag by half a gap, so order 2 is not exact on a quadratic.

    The authors' names are `first_enhance` for warmup, `fresh_threshold` for interval and
    `max_order` for order; they set 1, 5 and 1 for HunyuanVideo and Wan 2.1. The names in diffusers'
    `TaylorSeerCacheConfig` are `disable_cache_before_step`, `cache_interval`, `max_order`, and
    `disable_cache_after_step` for the first of the last steps. After its warm-up, diffusers runs
    where (s - warmup - 1) mod interval == 0, which are the same steps only for an interval of 2.
    It takes differences from the second step on, stores them in bfloat16, and forecasts no MLP by
    default.

    Args:
        interval: one step in so many runs; 1 forecasts nothing.
        order: order of the differences; 0 reuses outputs as they are.
        warmup: number of first steps that run.
        computed_last: number of last steps that run.
        computed_steps: number of steps that run, evenly spread (`evenly_spread`). If given,
            interval, warmup and computed_last do not matter.

    Raises:
        TypeError: a setting has the wrong type; names it, its value and what it may be.
        ValueError: a setting has a wrong value; names it, its value and what it may be.
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
        """Return the kinds of modules that a model must have: none."""
        return {}

    def run_steps(self, num_steps: int) -> set[int]:
        """Return the steps, counted from 1, in which modules run.

        Raises:
            ValueError: `computed_steps` is greater than `num_steps`.
        """
        if self.computed_steps is not None:
            if self.computed_steps > num_steps:
                raise ValueError(
                    f"computed_steps is {self.computed_steps}, but the generation has {num_steps} "
                    "steps; it must be at least 3 and at most that number"
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
        """Return the policy of one generation."""
        runs = self.run_steps(num_steps) if num_steps else set()
        # Evenly spread steps have no warm-up: differences begin with the second run.
        warmup = self.warmup if self.computed_steps is None else 1
        return TaylorSeerPolicy(runs, num_steps, self.order, warmup)


class TaylorSeerPolicy(ModulePolicy):
    """The schedule of one generation.

    Args:
        runs: steps in which modules run.
        num_steps: steps of the generation.
        order: order of the differences.
        warmup: the step from which differences are taken.
    """

    def __init__(self, runs: set[int], num_steps: int, order: int, warmup: int) -> None:
        super().__init__()
        self._runs = runs
        self._last_forecast = max(set(range(1, num_steps + 1)) - runs, default=0)
        self._order, self._warmup = order, warmup

    def reuses(self, kind: Kind, block: int) -> bool:
        """Return True if modules are forecast in this step."""
        return self._step not in self._runs

    def stores(self, kind: Kind, block: int) -> bool:
        """Return True if a later step is forecast."""
        return self._step < self._last_forecast

    def order(self, step: int) -> int:
        """Return how many finite differences are stored with an output of `step`."""
        return self._order if step >= self._warmup else 0
